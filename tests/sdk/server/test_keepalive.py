"""A connection that the network forgot: streams over it end, and no ping is taken for an attack."""

from __future__ import annotations

import asyncio
import queue

import grpc
import pytest

import shoal
import shoal.aio
from shoal import keepalive
from shoal.testing import Fault, FaultProxy, FixedDirectory
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.sdk.aio.support import on_loop
from tests.support.replica import AioEcho

# A server that bears a ping each 100 ms, and a caller that waits half a second for the answer.
EAGER = [("grpc.http2.min_recv_ping_interval_without_data_ms", 100)]
BRIEF = [("grpc.http2.ping_timeout_ms", 500)]


@pytest.fixture
def proxied(made, directory):
    """A server's replica behind a proxy, in the directory under the proxy's address."""
    proxies = []

    def make(**options):
        server = made(**options)
        proxies.append(FaultProxy(lambda: f"127.0.0.1:{server._ports[0]}"))
        server.serve(directory, advertise=proxies[-1].address)
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


def test_a_server_announces_how_often_it_bears_pings(made, directory):
    assert made().serve(directory).metadata["keepalive"] == "10"
    assert made(id="two", options=EAGER).serve(directory).metadata["keepalive"] == "0.2"
    told = made(id="three", metadata={"keepalive": "60"}).serve(directory)
    assert told.metadata["keepalive"] == "60"


@pytest.mark.parametrize("word", [None, "", "often", "0", "-1", "nan", "inf", "0.001"])
def test_nobody_is_pinged_who_does_not_say_how_often(word):
    assert keepalive.pings({} if word is None else {"keepalive": word}) == {}


def test_pings_go_out_as_often_as_was_announced():
    options = keepalive.pings({"keepalive": "10"})
    assert options["grpc.keepalive_time_ms"] == 10_000
    assert options["grpc.http2.max_pings_without_data"] == 0


@pytest.mark.parametrize("fault", [Fault.half_open(), Fault.drop(), Fault.deaf(), Fault.mute()])
def test_a_stream_over_a_dead_connection_ends(proxied, directory, fault):
    proxy = proxied(options=EAGER)
    requests = queue.SimpleQueue()
    with directory.channel("echo", options=BRIEF, retry=None) as channel:
        answers = echo_pb2_grpc.EchoStub(channel).EchoBoth(iter(requests.get, None))
        requests.put(pb.EchoRequest(payload=b"1"))
        assert next(answers).payload == b"1"
        proxy.inject(fault)
        # Without a deadline: only a ping can find out.
        with pytest.raises(grpc.RpcError) as failed:
            next(answers)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert proxy.hit > 0
        requests.put(None)


def test_a_stream_that_is_silent_for_long_lives(proxied, directory):
    proxied(options=EAGER)
    requests = queue.SimpleQueue()
    with directory.channel("echo", options=BRIEF, retry=None) as channel:
        answers = echo_pb2_grpc.EchoStub(channel).EchoBoth(iter(requests.get, None))
        requests.put(pb.EchoRequest(payload=b"1"))
        next(answers)
        # Ten pings' time; a server that takes them for an attack bears two.
        with pytest.raises(queue.Empty):
            queue.SimpleQueue().get(timeout=2.0)
        requests.put(pb.EchoRequest(payload=b"2"))
        assert next(answers).payload == b"2"
        requests.put(None)


@on_loop
async def test_a_stream_over_a_dead_connection_ends_on_a_loop():
    directory = FixedDirectory()
    server = shoal.aio.Server("echo", id="one", options=EAGER, linger=0.1)
    echo_pb2_grpc.add_EchoServicer_to_server(AioEcho("one"), server)
    with FaultProxy(lambda: f"127.0.0.1:{server._ports[0]}") as proxy:
        await server.serve(directory, advertise=proxy.address)
        async with shoal.aio.Channel(directory, "echo", options=BRIEF, retry=None) as channel:
            call = echo_pb2_grpc.EchoStub(channel).EchoBoth()
            await call.write(pb.EchoRequest(payload=b"1"))
            assert (await call.read()).payload == b"1"
            proxy.inject(Fault.half_open())
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await asyncio.wait_for(call.read(), 30)
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        await server.stop(0)
