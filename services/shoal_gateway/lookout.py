"""Looks at each replica of a fleet: what the directory says of it, and what it says itself.

Each is asked directly, over a connection of its own, so a look costs every replica one short call
and nobody else anything. No figure is kept anywhere: who looks twice has rates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shoal import LoadReport, Replica, orca
from shoal.directory import Directory
from shoal.watching import SetWatch
from shoal_gateway.client import state_name
from shoal_gateway.direct import channel_to
from shoal_gateway.fleet.names import SERVICES
from shoal_gateway.tokens import METADATA_KEY
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc

# Seconds for a replica to answer one look.
PATIENCE = 2.0
# Seconds for the directory to say what it knows.
KNOWN = 10.0


class Probe(NamedTuple):
    """A call that changes nothing and costs its replica little."""

    stub: Callable[[grpc.Channel], Any]
    method: str
    request: Any


# The registry's counts are asked for once a look, not of each replica: they cost a query.
PROBES: Mapping[str, Probe] = {
    "registry": Probe(
        registry_pb2_grpc.RegistryStub,
        "Changes",
        registry_pb2.ChangesRequest(after=-1, max_events=1),
    ),
    "api": Probe(api_pb2_grpc.ApiStub, "Applications", api_pb2.ApplicationsRequest()),
    "scheduler": Probe(scheduler_pb2_grpc.SchedulerStub, "Status", scheduler_pb2.StatusRequest()),
    "appmanager": Probe(
        appmanager_pb2_grpc.AppManagerStub, "Status", appmanager_pb2.StatusRequest()
    ),
}
# Any other server of Shoal's answers this, without a load report.
HEALTH = Probe(health_pb2_grpc.HealthStub, "Check", health_pb2.HealthCheckRequest())


@dataclass(frozen=True, slots=True)
class Sighting:
    """One replica in one look.

    Attributes:
        service: Whose replica it is.
        replica: As it is announced.
        fault: Why it did not answer; empty when it did.
        latency: Seconds that its answer took; None without one.
        report: What it said of its load; None: nothing.
        running: Jobs that run there, or are on offer; None where that means nothing.
        slots: Jobs that may run there at once; None where that means nothing.
        started: Jobs that it has started since it began; None where that means nothing.
    """

    service: str
    replica: Replica
    fault: str = ""
    latency: float | None = None
    report: LoadReport | None = None
    running: int | None = None
    slots: int | None = None
    started: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """A whole fleet at one moment.

    Attributes:
        at: When, monotonic seconds.
        directory: How the directory is, for people.
        replicas: By service and id.
        jobs: How many there are in each state; None when no registry answered.
    """

    at: float
    directory: str
    replicas: tuple[Sighting, ...] = ()
    jobs: Mapping[str, int] | None = field(default=None)


class Lookout:
    """Asks all replicas of some services, as often as it is told to.

    Args:
        directory: Where they are announced; its certificate is shown to them.
        services: Names; empty: the gateway's.
        token: Of the caller, where the api asks for one.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        directory: Directory,
        services: Sequence[str] = (),
        *,
        token: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._services = tuple(services) or SERVICES
        self._metadata = ((METADATA_KEY, f"Bearer {token}"),) if token is not None else ()
        self._clock = clock
        self._watches = {each: directory.watch(each) for each in self._services}
        self._channels: dict[tuple[str, str, str], grpc.Channel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def wait_known(self, timeout: float = KNOWN) -> bool:
        """Waits until it is known of all services which replicas they have; False if it is of none.

        Args:
            timeout: Seconds for all of them together.
        """
        return wait_known(self._watches.values(), timeout)

    def look(self, timeout: float = PATIENCE) -> Look:
        """Asks all at once, and waits at most ``timeout`` seconds for the last answer."""
        found = [
            (service, each) for service, watch in self._watches.items() for each in watch.replicas()
        ]
        self._forget(found)
        asked = [self._ask(service, each, timeout) for service, each in found]
        counts = self._count(found, timeout)
        seen = tuple(
            _sighting(service, each, *call)
            for (service, each), call in zip(found, asked, strict=True)
        )
        jobs = _jobs(counts) if counts is not None else None
        return Look(self._clock(), self._directory.describe(), seen, jobs)

    def close(self) -> None:
        """Ends all connections. Idempotent."""
        for channel in self._channels.values():
            channel.close()
        self._channels = {}

    def _ask(self, service: str, replica: Replica, timeout: float) -> tuple[Any, list[float]]:
        probe = PROBES.get(service, HEALTH)
        took: list[float] = []
        method = getattr(probe.stub(self._channel(service, replica)), probe.method)
        began = self._clock()
        call = method.future(probe.request, timeout=timeout, metadata=self._metadata)
        # Then, and not when somebody comes to read it.
        call.add_done_callback(lambda _: took.append(self._clock() - began))
        return call, took

    def _count(self, found: Sequence[tuple[str, Replica]], timeout: float) -> Any:
        for service, each in found:
            if service == "registry" and each.routable:
                stub = registry_pb2_grpc.RegistryStub(self._channel(service, each))
                return stub.Summary.future(registry_pb2.SummaryRequest(), timeout=timeout)
        return None

    def _channel(self, service: str, replica: Replica) -> grpc.Channel:
        key = (service, *replica.identity)
        channel = self._channels.get(key)
        if channel is None:
            made = channel_to(service, replica, self._directory.tls)
            channel = self._channels[key] = made
        return channel

    def _forget(self, found: Sequence[tuple[str, Replica]]) -> None:
        there = {(service, *each.identity) for service, each in found}
        for key in self._channels.keys() - there:
            self._channels.pop(key).close()


def wait_known(watches: Iterable[SetWatch], timeout: float = KNOWN) -> bool:
    """Waits until the replicas of all services are known; False if those of none are.

    Args:
        watches: Of the services.
        timeout: Seconds for all of them together.
    """
    deadline = time.monotonic() + timeout
    known = [each.wait_known(max(deadline - time.monotonic(), 0.0)) for each in watches]
    return any(known)


def _sighting(service: str, replica: Replica, call: Any, took: Sequence[float]) -> Sighting:
    # The call's own deadline bounds the wait. An answer that is an error is one all the same.
    code = call.code()
    report = orca.report_in(call.trailing_metadata())
    latency = took[0] if took else None
    if code is not grpc.StatusCode.OK:
        fault = f"{code.name.lower().replace('_', ' ')}: {call.details()}"
        heard = report is not None
        return Sighting(service, replica, fault, latency if heard else None, report)
    answer = call.result()
    running = slots = started = None
    if service == "appmanager":
        running, slots, started = len(answer.running), answer.slots, answer.started
    elif service == "scheduler":
        running, started = answer.on_offer, answer.started
    elif service not in PROBES and answer.status != health_pb2.HealthCheckResponse.SERVING:
        word = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return Sighting(service, replica, f"health: it says {word}", latency, report)
    return Sighting(service, replica, "", latency, report, running, slots, started)


def _jobs(call: Any) -> dict[str, int] | None:
    if call.code() is not grpc.StatusCode.OK:
        return None
    return {state_name(each.state): int(each.jobs) for each in call.result().counts}
