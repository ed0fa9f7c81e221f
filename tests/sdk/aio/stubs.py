"""Stubs of an asyncio channel, and one call of each kind."""

from __future__ import annotations

import contextlib

import shoal.aio
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc

DEADLINE = 30.0
ONCE = "/shoal.testing.v1.Echo/EchoOnce"


@contextlib.asynccontextmanager
async def stub_on(directory, **options):
    async with shoal.aio.Channel(directory, "echo", **options) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        stub.channel = channel
        yield stub


def one(payload=b"x", **facts):
    return pb.EchoRequest(payload=payload, **facts)


async def first(call):
    async for message in call:
        return message
    raise AssertionError("no message")


async def written(call):
    await call.write(one())
    await call.done_writing()
    return await call


SAFE = {
    "unary": lambda stub, **o: stub.Echo(one(), **o),
    "up": lambda stub, **o: stub.EchoUp([one()], **o),
    "up_written": lambda stub, **o: written(stub.EchoUp(**o)),
    "down": lambda stub, **o: first(stub.EchoDown(one(), **o)),
    "down_read": lambda stub, **o: stub.EchoDown(one(), **o).read(),
    "both": lambda stub, **o: first(stub.EchoBoth([one()], **o)),
}


async def awaited(call):
    return await call
