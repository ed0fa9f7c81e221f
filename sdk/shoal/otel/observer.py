"""The observer: hands out what counts and traces, and looks at what can be looked at."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import grpc.aio
from opentelemetry.trace import Tracer

from shoal.drain import Phase
from shoal.drainreport import DrainReport
from shoal.failures import Attempt
from shoal.hooks import Hooks
from shoal.otel import aiocalls, calls
from shoal.otel.measures import TARGET, Measures
from shoal.otel.servers import AioInterceptor, Interceptor
from shoal.otel.tables import Gauge, Tables
from shoal.otel.watching import (
    AttemptWatch,
    MethodWatch,
    measured_request,
    measured_response,
)
from shoal_balancer import Replica

Looks = Iterator[tuple[Sequence[str], float]]


def target(service: str) -> str:
    """``grpc.target`` of a channel to a service."""
    return f"zookeeper:///{service}"


class Observer:
    """Observes what is made while it is the process's.

    Args:
        tables: Where what is measured stands.
        tracer: Makes spans; None makes none.
    """

    def __init__(self, tables: Tables, tracer: Tracer | None) -> None:
        self.tables = tables
        self.tracer = tracer
        self.measures = Measures(self.tables)
        self._channels: weakref.WeakSet[Any] = weakref.WeakSet()
        self._directories: weakref.WeakSet[Any] = weakref.WeakSet()
        self._servers: weakref.WeakSet[Any] = weakref.WeakSet()
        # One for each method of each service, whichever channel calls it.
        self._methods: dict[tuple[str, str], MethodWatch] = {}
        for gauge in self._gauges():
            self.tables.watch(gauge)

    def directory(self, directory: Any) -> None:
        """A directory was made."""
        self._directories.add(directory)

    def channel(self, channel: Any) -> None:
        """A channel was made."""
        self._channels.add(channel)

    def hooks(self, service: str, hooks: Hooks | None) -> Hooks:
        """The hooks of a channel."""
        return _Counting(self.measures, target(service), hooks)

    def method(self, method: Any) -> Any:
        """What is called in place of a channel's method."""
        streams = method.kind.endswith("_stream")
        where = aiocalls if isinstance(method.channel, grpc.aio.Channel) else calls
        return (where.Streaming if streams else where.Unary)(method, self._watch(method))

    def sized(self, method: Any, serializer: Any, deserializer: Any) -> tuple[Any, Any]:
        """What serializes in place of a method's own."""
        if method.kind.endswith("_stream"):
            return serializer, deserializer
        return measured_request(serializer), measured_response(deserializer)

    def attempt(self, method: Any, replica: Replica, inner: Any) -> Any:
        """What is called in place of a method at one replica."""
        watch = AttemptWatch(self._watch(method), replica)
        if isinstance(method.channel, grpc.aio.Channel):
            return aiocalls.Attempts(inner, watch)
        streams = method.kind.endswith("_stream")
        return (calls.AttemptStream if streams else calls.AttemptUnary)(inner, watch)

    def interceptors(self, server: Any, *, aio: bool) -> Sequence[Any]:
        """A server was made."""
        self._servers.add(server)
        return ((AioInterceptor if aio else Interceptor)(self.measures, self.tracer),)

    def drained(self, server: Any, report: DrainReport) -> None:
        """A server has left."""
        outcome = "cut off" if report.unfinished else "clean"
        self.measures.drains.of(server.identity.service, outcome).add(report.seconds)

    def _watch(self, method: Any) -> MethodWatch:
        key = (method.channel.service, method.method)
        found = self._methods.get(key)
        if found is None:
            made = MethodWatch(
                self.measures,
                self.tracer,
                target(key[0]),
                key[1].removeprefix("/"),
                hedged=method.kind == "unary_unary",
            )
            found = self._methods.setdefault(key, made)
        return found

    def _gauges(self) -> list[Gauge]:
        service = ("shoal.service",)
        return [
            Gauge(
                "shoal.directory.age",
                "s",
                "Since ZooKeeper last confirmed a service's replicas; 0 while they are watched",
                service,
                self._ages,
            ),
            Gauge(
                "shoal.directory.connected",
                "1",
                "Whether ZooKeeper answers",
                (),
                self._connected,
            ),
            Gauge(
                "shoal.directory.replicas",
                "{replica}",
                "Replicas that the directory lists, by status",
                ("shoal.service", "shoal.status"),
                self._listed,
            ),
            Gauge(
                "shoal.channel.replicas",
                "{replica}",
                "Replicas of a channel, by what it thinks of them",
                (TARGET, "shoal.state"),
                self._thought_of,
            ),
            Gauge(
                "shoal.retry.budget",
                "{retry}",
                "Retries that the budget would allow now; of several channels the least",
                (TARGET,),
                self._budgets,
            ),
            Gauge(
                "shoal.server.calls.running",
                "{call}",
                "Calls that handlers are at work on",
                service,
                lambda: self._of_servers(lambda server: server.roster.running),
            ),
            Gauge(
                "shoal.server.callers",
                "{caller}",
                "Channels that have said hello and not left",
                service,
                lambda: self._of_servers(lambda server: server.roster.remaining),
            ),
            Gauge(
                "shoal.server.hellos",
                "{hello}",
                "Hellos of callers",
                service,
                lambda: self._of_servers(lambda server: server.roster.hellos),
                grows=True,
            ),
            Gauge(
                "shoal.server.draining",
                "1",
                "Whether the server is on its way out",
                service,
                lambda: self._of_servers(
                    lambda server: float(server.roster.phase is not Phase.SERVING), max
                ),
            ),
            Gauge(
                "shoal.server.refused",
                "{call}",
                "Calls that a server on its way out has turned away",
                service,
                lambda: self._of_servers(lambda server: server.roster.refused),
                grows=True,
            ),
        ]

    def _ages(self) -> Looks:
        # Several directories of a process may watch the same service.
        oldest: dict[str, float] = {}
        for service, watch in self._watches():
            # Never read, and nothing on disk: as old as can be.
            age = float("inf") if watch.age is None else watch.age
            oldest[service] = max(oldest.get(service, 0.0), age)
        for service, age in oldest.items():
            yield (service,), age

    def _connected(self) -> Looks:
        open_ones = [each for each in self._directories if each.describe() != "not used yet"]
        if open_ones:
            yield (), float(all(each.connected for each in open_ones))

    def _listed(self) -> Looks:
        most: dict[tuple[str, str], int] = {}
        for service, watch in self._watches():
            counted = Counter(
                replica.status.name if replica.enabled else "DISABLED"
                for replica in watch.replicas()
            )
            for status, count in (counted or {"UP": 0}).items():
                key = (service, status)
                most[key] = max(most.get(key, 0), count)
        yield from most.items()

    def _watches(self) -> Iterator[tuple[str, Any]]:
        for directory in list(self._directories):
            yield from directory.watches().items()

    def _thought_of(self) -> Looks:
        counted: dict[tuple[str, str], int] = {}
        for channel in list(self._channels):
            if channel.pool.closed:
                continue
            states = {"routable": 0, "ejected": 0, "unreachable": 0, "leaving": 0}
            for node in channel.pool.balancer.snapshot.nodes:
                if not node.replica.routable:
                    states["leaving"] += 1
                elif node.health.ejected:
                    states["ejected"] += 1
                elif not node.reachable:
                    states["unreachable"] += 1
                else:
                    states["routable"] += 1
            for state, count in states.items():
                # Several channels of a process see the same replicas.
                key = (target(channel.service), state)
                counted[key] = max(counted.get(key, 0), count)
        yield from counted.items()

    def _budgets(self) -> Looks:
        least: dict[str, float] = {}
        for channel in list(self._channels):
            if channel.retry is not None and not channel.pool.closed:
                name = target(channel.service)
                left = max(channel.retry.budget.balance(), 0.0)
                least[name] = min(least.get(name, left), left)
        for name, left in least.items():
            yield (name,), left

    def _of_servers(self, number: Any, of_several: Any = sum) -> Looks:
        found: dict[str, list[float]] = {}
        for server in list(self._servers):
            found.setdefault(server.identity.service, []).append(number(server))
        for service, numbers in found.items():
            yield (service,), of_several(numbers)


class _Counting(Hooks):
    """Counts what a channel tells, and passes it on."""

    def __init__(self, measures: Measures, name: str, others: Hooks | None) -> None:
        self._measures = measures
        self._name = name
        self._others = others or Hooks()
        # The plain one's do nothing, and this is called for every attempt.
        self.ended = self._others.ended  # type: ignore[method-assign]

    def ejected(self, replica: Replica, seconds: float) -> None:
        self._measures.ejections.of(self._name, replica.zone).add(1)
        self._others.ejected(replica, seconds)

    def readmitted(self, replica: Replica) -> None:
        self._measures.readmissions.of(self._name, replica.zone).add(1)
        self._others.readmitted(replica)

    def retried(self, method: str, number: int, failed: Attempt) -> None:
        self._others.retried(method, number, failed)

    def hedged(self, method: str, replica: Replica) -> None:
        self._others.hedged(method, replica)
