"""A bare grpc echo server in a process of its own, for every peer the same.

As a program it prints its target, and then answers each line of its input with the number of calls
that it has had. It ends with its input, so that it never outlives who started it:

    python -m benchmarks.paired.echo [--work SECONDS] [--fail] [--addresses N] [--threads]
        [--tls DIR]

With ``--tls`` it listens at a second port too, with a certificate, and prints both targets.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from shoal.security import server_credentials
from shoal.tls import Tls, TlsFiles
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc

OPTIONS = [("grpc.so_reuseport", 0)]


class Echo(echo_pb2_grpc.EchoServicer):
    """Answers with what it got.

    Args:
        work: Seconds that a call takes.
        fail: Whether to answer UNAVAILABLE, at once.
    """

    def __init__(self, work: float, fail: bool) -> None:
        self.calls = 0
        self._work = work
        self._fail = fail

    async def Echo(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        """One call."""
        self.calls += 1
        if self._fail:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this replica fails")
        if self._work:
            await asyncio.sleep(self._work)
        return echo_pb2.EchoResponse(payload=request.payload)

    async def EchoOnce(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        """The same, without a promise that it may be repeated."""
        return await self.Echo(request, context)


def loopback(number: int) -> str:
    """One of the many addresses of the loopback device, the first being 127.0.0.1."""
    return f"127.0.{number // 250}.{number % 250 + 1}"


class Threaded(echo_pb2_grpc.EchoServicer):
    """The same on a server with threads, where it only echoes."""

    def Echo(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        """One call."""
        return echo_pb2.EchoResponse(payload=request.payload)


def bind(server: grpc.Server | grpc.aio.Server, tls: str | None) -> str:
    """Binds a port, and a second one for TLS where that is wanted; their targets."""
    targets = [f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"]
    if tls is not None:
        credentials = server_credentials(TlsFiles(Tls.of(tls)), "echo")
        targets.append(f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}")
    return " ".join(targets)


def serve_threaded(tls: str | None) -> None:
    """Serves on threads until the input ends."""
    server = grpc.server(ThreadPoolExecutor(32), options=OPTIONS)
    echo = Threaded()  # type: ignore[abstract]  # streams are not measured
    echo_pb2_grpc.add_EchoServicer_to_server(echo, server)
    targets = bind(server, tls)
    server.start()
    print(targets, flush=True)  # noqa: T201 - a program's answer
    sys.stdin.read()
    server.stop(None)


async def serve(work: float, fail: bool, addresses: int, tls: str | None) -> None:
    """Serves until the input ends."""
    echo = Echo(work, fail)  # type: ignore[abstract]  # streams are not measured
    server = grpc.aio.server(options=OPTIONS)
    echo_pb2_grpc.add_EchoServicer_to_server(echo, server)
    targets = bind(server, tls)
    port = targets.rpartition(":")[2]
    for number in range(1, addresses):
        server.add_insecure_port(f"{loopback(number)}:{port}")
    await server.start()
    print(targets, flush=True)  # noqa: T201 - a program's answer
    while await asyncio.to_thread(sys.stdin.readline):
        print(echo.calls, flush=True)  # noqa: T201 - a program's answer
    await server.stop(None)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=float, default=0.0, help="seconds that a call takes")
    parser.add_argument("--fail", action="store_true", help="answer UNAVAILABLE at once")
    parser.add_argument("--addresses", type=int, default=1, help="of loopback, with one port")
    parser.add_argument("--threads", action="store_true", help="grpc's server with threads")
    parser.add_argument("--tls", metavar="DIR", help="a certificate, for a second port")
    options = parser.parse_args()
    if options.threads:
        serve_threaded(options.tls)
        return
    asyncio.run(serve(options.work, options.fail, options.addresses, options.tls))


if __name__ == "__main__":
    main()
