"""What is measured and traced of servers, and that calls of a handler are in its trace."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc
import pytest

import shoal
import shoal.aio
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import Echo
from tests.support.waiting import eventually

WAIT = 30.0
SERVED = "grpc.server.call.duration"


@pytest.fixture
def serve():
    """Serves in a directory; what a test leaves, because it failed, is stopped."""
    served = []

    def make(server, directory):
        served.append(server)
        server.serve(directory)

    yield make
    for server in served:
        assert server.stop(0).wait(WAIT)


class Relay(echo_pb2_grpc.EchoServicer):
    """Calls the echo for its own callers."""

    def __init__(self, channel):
        self.echo = echo_pb2_grpc.EchoStub(channel)

    def Echo(self, request, context):
        return self.echo.Echo(request, timeout=WAIT)


class AioRelay(Relay):
    async def Echo(self, request, context):
        return await self.echo.Echo(request, timeout=WAIT)


def ends(span, seen):
    """Names from a span up to the top of its trace."""
    spans = {each.context.span_id: each for each in seen.exporter.get_finished_spans()}
    names = []
    while span is not None:
        names.append(span.name.partition(".")[0])
        span = spans.get(span.parent.span_id) if span.parent else None
    return names


def test_two_servers_and_a_caller_are_one_trace(seen, serve):
    directory = FixedDirectory({})
    behind, before = shoal.Server("echo"), shoal.Server("relay")
    with directory.channel("echo") as channel, directory.channel("relay") as to_relay:
        echo_pb2_grpc.add_EchoServicer_to_server(Echo(), behind)
        echo_pb2_grpc.add_EchoServicer_to_server(Relay(channel), before)
        for server in (behind, before):
            serve(server, directory)
        request = echo_pb2.EchoRequest(payload=b"x" * 50)
        answer = echo_pb2_grpc.EchoStub(to_relay).Echo(request, timeout=WAIT)
        seen.counts(2, SERVED, method="Echo", status="OK")
        for server in (behind, before):
            server.stop(0).wait(WAIT)
    (last,) = [each for each in seen.spans("Recv.") if len(ends(each, seen)) == 6]
    assert ends(last, seen) == ["Recv", "Attempt", "Sent", "Recv", "Attempt", "Sent"]
    assert seen.count("grpc.server.call.started", method="Echo") == 2
    (received,) = seen.points("grpc.server.call.rcvd_total_compressed_message_size")
    (sent,) = seen.points("grpc.server.call.sent_total_compressed_message_size")
    assert (received.sum, sent.sum) == (2 * request.ByteSize(), 2 * answer.ByteSize())
    assert seen.count("shoal.server.drain.duration") == 2
    hellos = {p.attributes["shoal.service"]: p.value for p in seen.points("shoal.server.hellos")}
    assert hellos == {"echo": 1, "relay": 1}


async def test_on_asyncio_too(seen):
    directory = FixedDirectory({})
    behind, before = shoal.aio.Server("echo"), shoal.aio.Server("relay")
    async with (
        shoal.aio.Channel(directory, "echo") as channel,
        shoal.aio.Channel(directory, "relay") as to_relay,
        AsyncExitStack() as stops,
    ):
        echo_pb2_grpc.add_EchoServicer_to_server(Echo(), behind)
        echo_pb2_grpc.add_EchoServicer_to_server(AioRelay(channel), before)
        for server in (behind, before):
            await server.serve(directory)
            stops.push_async_callback(server.stop, 0)
        stub = echo_pb2_grpc.EchoStub(to_relay)
        await stub.Echo(echo_pb2.EchoRequest(payload=b"x"), timeout=WAIT)
        assert [each async for each in echo_pb2_grpc.EchoStub(channel).EchoDown(
            echo_pb2.EchoRequest(answers=3), timeout=WAIT)]  # fmt: skip
    assert max(len(ends(each, seen)) for each in seen.spans("Recv.")) == 6
    assert seen.count(SERVED, method="Echo", status="OK") == 2
    assert seen.count(SERVED, method="EchoDown", status="OK") == 1


@pytest.mark.parametrize("method", ["Echo", "EchoDown"])
def test_a_failure_is_counted_by_its_status(seen, serve, method):
    directory = FixedDirectory({})
    server = shoal.Server("echo")
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
    serve(server, directory)
    with directory.channel("echo", retry=None) as channel:
        call = getattr(echo_pb2_grpc.EchoStub(channel), method)
        with pytest.raises(grpc.RpcError):
            list(call(echo_pb2.EchoRequest(code=5), timeout=WAIT))
        seen.counts(1, SERVED, method=method, status="NOT_FOUND")
        seen.counts(1, "grpc.client.call.duration", method=method, status="NOT_FOUND")
        (received,) = eventually(lambda: seen.spans("Recv."), what="the handler's span")
    assert received.status.description.startswith("NOT_FOUND: ")
    assert received.status.description.endswith("was told to fail")
    server.stop(0).wait(WAIT)
