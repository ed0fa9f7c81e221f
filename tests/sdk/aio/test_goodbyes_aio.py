"""What an asyncio channel says to a replica that it leaves."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import grpc
import grpc.aio
import pytest

import shoal.aio
from shoal.testing import FixedDirectory
from shoal_balancer import Status
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.sdk.aio.stubs import DEADLINE, one, stub_on
from tests.sdk.aio.support import eventually, on_loop
from tests.support.listening import listener

__all__ = ["listener"]


@pytest.mark.parametrize("slow", [0.0, 0.15])
@on_loop
async def test_a_channel_that_closes_says_goodbye(listener, slow):
    listener.slow = slow
    for _ in range(3):
        async with stub_on(FixedDirectory({"echo": [listener.replica]})) as stub:
            await stub.Echo(one())
    assert listener.words == ["hello", "released"] * 3


@on_loop
async def test_closing_does_not_wait_for_a_replica_that_hears_nothing(listener):
    listener.slow = DEADLINE / 10
    channel = shoal.aio.Channel(FixedDirectory({"echo": [listener.replica]}), "echo")
    await echo_pb2_grpc.EchoStub(channel).Echo(one())
    began = time.monotonic()
    await channel.close()
    assert time.monotonic() - began < 2.5


@on_loop
async def test_a_draining_replica_hears_goodbye_after_the_last_call(listener):
    directory = FixedDirectory({"echo": [listener.replica]})
    async with stub_on(directory) as stub:
        call = stub.EchoBoth(timeout=DEADLINE)
        await call.write(one())
        await call.read()
        # Said on its own, and perhaps heard a little later.
        await eventually(lambda: listener.words == ["hello"])
        leaving = replace(listener.replica, status=Status.DRAINING)
        await asyncio.to_thread(directory.set, "echo", [leaving])
        with pytest.raises(grpc.aio.AioRpcError, match="draining"):
            await stub.Echo(one())
        assert listener.words == ["hello"]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        await eventually(lambda: listener.words == ["hello", "released"])
