"""Bytes that are no message are their sender's mistake, in each kind of method of each server."""

from __future__ import annotations

import logging

import grpc
import pytest

from shoal.aio.server import Server as AioServer
from shoal.server import Server
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import Echo

NONE = b"\x0a\xff\xff\xff"
KINDS = {
    each.name: (
        "stream" if each.client_streaming else "unary",
        "stream" if each.server_streaming else "unary",
    )
    for each in echo_pb2.DESCRIPTOR.services_by_name["Echo"].methods
}


class AioEcho(echo_pb2_grpc.EchoServicer):
    """Each method as its kind wants it, asynchronously."""


def _aio(kind):
    requests, responses = kind

    async def read(request):
        if requests == "unary":
            return request
        return [each async for each in request]

    if responses == "stream":

        async def stream(self, request, context):
            await read(request)
            yield echo_pb2.EchoResponse(server="aio")

        return stream

    async def unary(self, request, context):
        await read(request)
        return echo_pb2.EchoResponse(server="aio")

    return unary


for _name, _kind in KINDS.items():
    setattr(AioEcho, _name, _aio(_kind))


def call(channel, name, *messages):
    requests, responses = KINDS[name]
    made = getattr(channel, f"{requests}_{responses}")(
        f"/shoal.testing.v1.Echo/{name}", lambda each: each, lambda each: each
    )
    answer = made(iter(messages) if requests == "stream" else messages[0], timeout=20)
    return list(answer) if responses == "stream" else [answer]


def judge(channel, caplog):
    good = echo_pb2.EchoRequest(payload=b"x").SerializeToString()
    for name, (requests, _) in KINDS.items():
        for messages in ([NONE], [good, NONE]) if requests == "stream" else ([NONE],):
            with pytest.raises(grpc.RpcError) as caught:
                call(channel, name, *messages)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
            assert "the bytes of the request" in caught.value.details()
        assert call(channel, name, good)
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_blocking_server(caplog):
    server = Server("echo")
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
    replica = server.serve(FixedDirectory({}))
    with grpc.insecure_channel(replica.target) as channel:
        judge(channel, caplog)
    server.stop(0).wait(20)


async def test_an_asyncio_server(caplog):
    import asyncio

    server = AioServer("echo")
    echo_pb2_grpc.add_EchoServicer_to_server(AioEcho(), server)
    replica = await server.serve(FixedDirectory({}))
    with grpc.insecure_channel(replica.target) as channel:
        await asyncio.to_thread(judge, channel, caplog)
    await server.stop(0)
