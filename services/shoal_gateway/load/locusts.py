"""What the locustfiles share: users that call through the SDK, and the report of who served them.

Locust's processes are forked after a locustfile was imported, so nothing here opens anything before
a process of its own begins: grpc is told of gevent, and the directory opened, in each of them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental.gevent as grpc_gevent
from locust import LoadTestShape, User, events
from locust.env import Environment
from locust.runners import WorkerRunner

import shoal
from shoal.channel import replica_of
from shoal_gateway.load import shapes, spread

_locust: Any = events  # its methods have no types
MESSAGE = "shoal_spread"
# Seconds for a call, all attempts together.
TIMEOUT = 10.0


class Connections:
    """One way into the fleet for each process, shared by its users."""

    def __init__(self) -> None:
        self._directory: shoal.Directory | None = None
        self._channels: dict[str, shoal.Channel] = {}

    def directory(self, zookeeper: str) -> shoal.Directory:
        """The process's session."""
        if self._directory is None:
            self._directory = shoal.Directory(zookeeper, tls=shoal.Tls.from_environment())
        return self._directory

    def channel(self, zookeeper: str, service: str) -> shoal.Channel:
        """The process's channel to a service."""
        if service not in self._channels:
            self._channels[service] = self.directory(zookeeper).channel(service)
        return self._channels[service]

    def close(self, **_: Any) -> None:
        """Ends the ZooKeeper session."""
        directory, self._directory = self._directory, None
        self._channels.clear()
        if directory is not None:
            directory.close()


connections = Connections()


class Caller(User):
    """A user whose calls go to replicas that it finds in ZooKeeper; a base for others."""

    abstract = True

    def directory(self) -> shoal.Directory:
        """This process's way into the fleet.

        Raises:
            ValueError: nobody said where ZooKeeper is.
        """
        return connections.directory(self._zookeeper())

    def channel(self, service: str) -> shoal.Channel:
        """The channel to a service.

        Raises:
            ValueError: nobody said where ZooKeeper is.
        """
        return connections.channel(self._zookeeper(), service)

    def _zookeeper(self) -> str:
        zookeeper = self.host or os.environ.get("SHOAL_ZOOKEEPER")
        if not zookeeper:
            raise ValueError("say where ZooKeeper is: --host 127.0.0.1:2181/gateway")
        return zookeeper

    def call(self, service: str, name: str, method: Any, request: Any) -> Any:
        """Makes a unary call and reports it; None when it failed.

        Args:
            service: What is called.
            name: For Locust's table.
            method: Of the stub.
            request: Its request.
        """
        began = time.monotonic()
        try:
            response, call = method.with_call(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            self.fire(name, began, error, service=service, served=error)
            return None
        self.fire(name, began, None, service=service, served=call)
        return response

    def fire(
        self,
        name: str,
        began: float,
        error: Exception | None,
        *,
        service: str = "",
        served: Any = None,
    ) -> None:
        """Reports something that has ended.

        Args:
            name: For Locust's table.
            began: When, by ``time.monotonic``.
            error: What went wrong, if anything.
            service: Whose replica served it; empty: this was no single call, so it does not count
                in the spread.
            served: The call, or its error: who served it can be read from that.
        """
        context: dict[str, Any] = {}
        if service:
            replica = replica_of(served)
            context = {"service": service, "replica": replica.id if replica else spread.NOBODY}
        self.environment.events.request.fire(
            request_type="shoal",
            name=name,
            response_time=(time.monotonic() - began) * 1000.0,
            response_length=0,
            exception=error,
            context=context,
        )


class SpreadReport:
    """Counts calls by replica in every process, and reports the sum in the one that leads.

    Args:
        environment: Locust's.
        out: Tells the console.
    """

    def __init__(self, environment: Environment, out: Callable[[str], Any]) -> None:
        self._environment = environment
        self._out = out
        self._spread = spread.Spread()
        made: Any = environment.events
        made.request.add_listener(self._count)
        if isinstance(environment.runner, WorkerRunner):
            # With each report to the main process, so that a worker's end loses little, and with
            # the last one, which is sent when all users have stopped.
            made.report_to_master.add_listener(self._send)
        else:
            if environment.runner is not None:
                environment.runner.register_message(MESSAGE, self._receive)
            # Not "quitting": the workers' last words come after that.
            made.quit.add_listener(self._report)

    def _count(
        self,
        response_time: float,
        context: dict[str, Any],
        exception: Exception | None = None,
        **_: Any,
    ) -> None:
        if context and "replica" in context:
            self._spread.add(
                context["service"],
                context["replica"],
                response_time,
                failed=exception is not None,
            )

    def _send(self, **_: Any) -> None:
        runner = self._environment.runner
        message = self._spread.take()
        if message and runner is not None:
            runner.send_message(MESSAGE, message)

    def _receive(self, msg: Any, **_: Any) -> None:
        self._spread.merge(msg.data)

    def _report(self, **_: Any) -> None:
        rows = self._spread.rows()
        self._out("\nCalls by replica\n" + spread.as_table(rows))
        prefix = getattr(self._environment.parsed_options, "spread", "")
        if prefix:
            path = Path(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(spread.documents(rows), indent=2) + "\n"
            Path(f"{path}.json").write_text(text, encoding="utf-8")
            Path(f"{path}.csv").write_text(spread.as_csv(rows), encoding="utf-8")


class ShapedLoad(LoadTestShape):
    """Locust's side of a shape; a base for those that say which."""

    abstract = True
    # Users a second when their number changes.
    rate = 1000.0

    def shape(self) -> shapes.Shape:
        """Which shape, by the command line's options."""
        raise NotImplementedError(f"{type(self).__name__} must say which shape it is")

    def tick(self) -> tuple[int, float] | None:
        """How many users now; None when all is over."""
        locust: Any = super()  # its methods have no types
        wanted = self.shape().users(locust.get_run_time())
        if wanted is not None:
            return wanted, self.rate
        # The end is said when nobody is left: else Locust ends its workers without waiting for
        # their last reports.
        return (0, self.rate) if locust.get_current_user_count() else None

    def option(self, name: str) -> Any:
        """An option of the command line."""
        runner = self.runner
        if runner is None or runner.environment.parsed_options is None:
            raise RuntimeError("a shape is asked before Locust has read its options")
        return getattr(runner.environment.parsed_options, name)


def options(add: Callable[[Any], None]) -> None:
    """Adds a locustfile's own options to Locust's command line."""
    _locust.init_command_line_parser.add_listener(add)


def _common(parser: Any) -> None:
    parser.add_argument(
        "--spread",
        default="",
        metavar="PREFIX",
        help="write which replica served how many calls to PREFIX.json and PREFIX.csv",
    )


def _begin(environment: Environment, **_: Any) -> None:
    # Locust has patched the standard library for gevent. grpc's core must be told, in each process
    # before its first use there, and then blocks greenlets in place of threads.
    grpc_gevent.init_gevent()
    SpreadReport(environment, sys.stdout.write)


options(_common)
_locust.init.add_listener(_begin)
_locust.quitting.add_listener(connections.close)
