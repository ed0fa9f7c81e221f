"""The Echo service on `shoal.Server` or `shoal.aio.Server`, announced in a real ZooKeeper.

As a program it prints its target when it is announced and its drain's report at the end:
python -m tests.support.replica HOSTS NAME KIND
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from typing import Self

import shoal
import shoal.aio
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import CODES, ROOT, Echo

SERVICE = "echo"


class SteppingEcho(Echo):
    """An Echo whose stream works before each answer, not once."""

    def EchoDown(self, request, context):
        for _ in range(request.answers or 1):
            yield self._answer(request, context, "EchoDown")


class AioEcho(echo_pb2_grpc.EchoServicer):
    """What `Echo` does, awaited."""

    def __init__(self, name: str = "echo") -> None:
        self.name = name
        self.calls = 0

    async def _answer(self, request, context) -> echo_pb2.EchoResponse:
        self.calls += 1
        await asyncio.sleep(request.work)
        return echo_pb2.EchoResponse(payload=request.payload, server=self.name, calls=self.calls)

    async def _end(self, request, context) -> None:
        if request.code:
            await context.abort(CODES[request.code], f"{self.name} was told to fail")

    async def Echo(self, request, context):
        await self._end(request, context)
        return await self._answer(request, context)

    async def EchoOnce(self, request, context):
        return await self.Echo(request, context)

    async def EchoDown(self, request, context):
        for _ in range(request.answers or 1):
            yield await self._answer(request, context)
        await self._end(request, context)

    async def EchoUp(self, request_iterator, context):
        payload = b""
        async for request in request_iterator:
            payload += request.payload
        return echo_pb2.EchoResponse(payload=payload, server=self.name)

    async def EchoBoth(self, request_iterator, context):
        async for request in request_iterator:
            yield await self._answer(request, context)


class ReplicaProcess:
    """One replica in a process of its own, to be asked to leave.

    Args:
        hosts: ZooKeeper's, with the chroot.
        name: The replica's id.
        kind: "sync" or "aio".
    """

    def __init__(self, hosts: str, name: str, kind: str = "sync") -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.replica", hosts, name, kind],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.target = self.process.stdout.readline().strip()
        assert self.target, f"{name} did not start"

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def left(self, timeout: float = 60.0) -> shoal.DrainReport:
        """Waits for its end; what its drain saw."""
        out, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, f"{self.name} ended with {self.process.returncode}"
        return shoal.DrainReport.from_json(out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self.process.stdout.close()


def announced(replica: shoal.Replica) -> None:
    print(replica.target, flush=True)


def serve(hosts: str, name: str) -> shoal.DrainReport:
    with shoal.Directory(hosts) as directory:
        server = shoal.Server(SERVICE, id=name)
        echo_pb2_grpc.add_EchoServicer_to_server(SteppingEcho(name), server)
        return server.run(directory, ready=announced)


async def serve_aio(hosts: str, name: str) -> shoal.DrainReport:
    async with shoal.aio.Directory(hosts) as directory:
        server = shoal.aio.Server(SERVICE, id=name)
        echo_pb2_grpc.add_EchoServicer_to_server(AioEcho(name), server)
        return await server.run(directory, ready=announced)


def main() -> None:
    hosts, name, kind = sys.argv[1:]
    logging.basicConfig(level=os.environ.get("LOG", "WARNING"))
    report = serve(hosts, name) if kind == "sync" else asyncio.run(serve_aio(hosts, name))
    print(report.to_json(), flush=True)


if __name__ == "__main__":
    main()
