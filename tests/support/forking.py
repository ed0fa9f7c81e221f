"""Forks after all kinds of use, and says what became of grpc in the children.

As a program it prints a JSON object {what the child did: what came of it}:
python -m tests.support.forking TARGET STATE, with or without GRPC_ENABLE_FORK_SUPPORT=1.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import grpc

import shoal
import shoal.aio
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import Echo
from tests.support.replica import AioEcho

REQUEST = echo_pb2.EchoRequest(payload=b"x")
# A child that takes longer hangs.
DEADLINE = 20


def ask(channel) -> str:
    return "ok" if echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=10) else "nothing"


async def ask_aio(channel) -> str:
    return "ok" if await echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=10) else "nothing"


async def fresh_aio_channel(target: str) -> str:
    async with shoal.aio.Channel(FixedDirectory({"echo": [target]}), "echo", retry=None) as channel:
        return await ask_aio(channel)


def fresh_channel(target: str) -> str:
    with FixedDirectory({"echo": [target]}).channel("echo", retry=None) as channel:
        return ask(channel)


def own_server() -> str:
    server = shoal.Server("echo", linger=0.0)
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
    answer = fresh_channel(server.serve(FixedDirectory()).target)
    server.stop().wait()
    return answer


async def own_aio_server() -> str:
    server = shoal.aio.Server("echo", linger=0.0)
    echo_pb2_grpc.add_EchoServicer_to_server(AioEcho(), server)
    answer = await fresh_aio_channel((await server.serve(FixedDirectory())).target)
    await server.stop()
    return answer


class Parent:
    """What the parent has when it forks.

    Args:
        target: An Echo server outside.
        state: "unused", "called", "closed", "plain", "serving" or "aio".
    """

    def __init__(self, target: str, state: str) -> None:
        self.target = target
        self.directory = FixedDirectory({"echo": [target]})
        self.channel = self.directory.channel("echo", retry=None)
        self.server = None
        self.aio_channel = None
        if state in ("called", "closed"):
            ask(self.channel)
        if state == "closed":
            self.channel.close()
            self.channel = self.directory.channel("echo", retry=None)
        if state == "plain":
            self.plain = grpc.insecure_channel(target)
            ask(self.plain)
        if state == "serving":
            self.server = shoal.Server("mine")
            self.server.serve(FixedDirectory())
        if state == "aio":
            self.loop = asyncio.new_event_loop()
            self.loop.run_until_complete(self._use_aio())

    async def _use_aio(self) -> None:
        self.aio_channel = shoal.aio.Channel(self.directory, "echo", retry=None)
        await ask_aio(self.aio_channel)

    def actions(self):
        yield "inherited channel", lambda: ask(self.channel)
        yield "fresh channel", lambda: fresh_channel(self.target)
        yield "own server", own_server
        if self.server is not None:
            yield "inherited server", lambda: str(self.server.drain())
        if self.aio_channel is not None:
            yield "inherited aio channel", lambda: asyncio.run(ask_aio(self.aio_channel))
        yield "fresh aio channel", lambda: asyncio.run(fresh_aio_channel(self.target))
        yield "own aio server", lambda: asyncio.run(own_aio_server())


def in_child(action) -> str:
    """What came of it in a forked child; "hangs" when it did not end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(DEADLINE)
        try:
            outcome = action()
        except BaseException as error:  # noqa: BLE001 - reported to the parent
            outcome = f"{type(error).__name__}: {error}"
        os.write(writer, outcome.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "hangs" if number == signal.SIGALRM else f"dies of signal {number}"
    return said


def main() -> None:
    target, state = sys.argv[1:]
    parent = Parent(target, state)
    outcomes = {name: in_child(action) for name, action in parent.actions()}
    # The parent goes on as if nothing had been.
    outcomes["parent"] = ask(parent.channel)
    print(json.dumps(outcomes), flush=True)
    # Without the farewells of whatever state this is.
    os._exit(0)


if __name__ == "__main__":
    main()
