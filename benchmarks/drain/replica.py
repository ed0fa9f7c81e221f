"""A replica of the Echo service in a process of its own, blocking or asyncio.

    python -m benchmarks.drain.replica ZOOKEEPER NAME KIND BIND

It prints JSON, a line each: ``{"announced": "HOST:PORT"}``; ``{"called": SECONDS}`` at its first
call, of which either may come first; and its drain's report at the end. It drains on SIGTERM, as
any server does, and ends at once with its input.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import shoal
import shoal.aio
from benchmarks.drain.callers import SERVICE
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc


class Echo(echo_pb2_grpc.EchoServicer):
    """Answers with what it got, and says when it was called first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls = itertools.count(1)

    def EchoOnce(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        """One call, without a promise that it may be repeated."""
        number = next(self._calls)
        if number == 1:
            say({"called": time.monotonic()})
        if request.work:
            time.sleep(request.work)
        return echo_pb2.EchoResponse(payload=request.payload, server=self._name, calls=number)


class AioEcho(Echo):
    """The same, awaited."""

    async def EchoOnce(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        """One call."""
        work, request.work = request.work, 0.0
        if work:
            await asyncio.sleep(work)
        return super().EchoOnce(request, context)


def say(what: dict[str, Any]) -> None:
    """Prints a line, whole, from any thread."""
    with _printing:
        print(json.dumps(what), flush=True)  # noqa: T201 - a program's answer


_printing = threading.Lock()


def announced(replica: shoal.Replica) -> None:
    """Says where it is."""
    say({"announced": replica.target})


def serve(hosts: str, name: str, bind: str) -> shoal.DrainReport:
    """On threads."""
    with shoal.Directory(hosts) as directory:
        server = shoal.Server(SERVICE, id=name)
        echo_pb2_grpc.add_EchoServicer_to_server(Echo(name), server)  # type: ignore[abstract]
        _follow_input(lambda: server.stop(0.0))
        return server.run(directory, bind=bind, ready=announced)


async def serve_aio(hosts: str, name: str, bind: str) -> shoal.DrainReport:
    """On an event loop."""
    async with shoal.aio.Directory(hosts) as directory:
        server = shoal.aio.Server(SERVICE, id=name, grace=10.0)
        echo_pb2_grpc.add_EchoServicer_to_server(AioEcho(name), server)  # type: ignore[abstract]
        _follow_input(server.end)
        return await server.run(directory, bind=bind, ready=announced)


def _follow_input(end: Callable[[], object]) -> None:
    # It ends with who started this; a replica must not outlive that.
    def follow() -> None:
        sys.stdin.read()
        end()

    threading.Thread(target=follow, daemon=True).start()


def main() -> None:
    """The program."""
    hosts, name, kind, bind = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    if kind == "sync":
        report = serve(hosts, name, bind)
    else:
        report = asyncio.run(serve_aio(hosts, name, bind))
    with _printing:
        print(report.to_json(replica=name), flush=True)  # noqa: T201 - a program's answer


if __name__ == "__main__":
    main()
