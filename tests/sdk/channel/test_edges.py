"""Ends that come from the side: closed channels, broken sources, endpoints that can't be opened."""

import time

import grpc
import pytest

import shoal
from shoal.aio.replay import AioReplayedRequests
from shoal.channel import Channel
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import EchoServer
from tests.support.waiting import eventually


def test_a_future_that_waits_for_a_replica_ends_when_its_channel_closes():
    channel = Channel(FixedDirectory({"echo": []}), "echo")
    future = echo_pb2_grpc.EchoStub(channel).Echo.future(
        echo_pb2.EchoRequest(), timeout=60.0, wait_for_ready=True
    )
    channel.close()
    with pytest.raises(shoal.CallError) as caught:
        future.result(timeout=10.0)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert future.code() is grpc.StatusCode.CANCELLED
    assert future.done()


def test_an_endpoint_that_can_not_be_opened_leaves_no_call_in_flight():
    directory = FixedDirectory({"echo": ["127.0.0.1:1"]})
    with Channel(directory, "echo", options=[("bad", object())]) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        for _ in range(3):
            with pytest.raises(TypeError):
                stub.Echo(echo_pb2.EchoRequest())
        assert [node.in_flight for node in channel.pool.balancer.snapshot.nodes] == [0]


def test_close_ends_a_stream_at_a_replica_that_has_left_the_directory():
    with EchoServer() as server:
        directory = FixedDirectory({"echo": [server.target]})
        channel = Channel(directory, "echo")
        pool = channel.pool
        pool.balancer._reserve = 0.0
        stream = echo_pb2_grpc.EchoStub(channel).EchoDown(
            echo_pb2.EchoRequest(answers=2, work=0.0), timeout=60.0
        )
        next(stream)
        # Held open by a call that has not ended.
        (node,) = pool.balancer.snapshot.nodes
        node.begin()
        directory.set("echo", [])
        pool._part_from(pool.balancer.tick())
        assert node in pool._parting
        channel.close()
        assert node.endpoint.closed


def test_waiting_for_a_replica_does_not_outlast_the_deadline():
    with Channel(FixedDirectory({"echo": []}), "echo") as channel:
        stub = echo_pb2_grpc.EchoStub(channel)

        def quick():
            began = time.monotonic()
            with pytest.raises(shoal.CallError):
                stub.Echo(echo_pb2.EchoRequest(), timeout=0.02, wait_for_ready=True)
            return time.monotonic() - began < 0.15

        # A busy machine may stall one call; a wait that is too long would stall each.
        assert any(quick() for _ in range(5))


async def test_a_request_stream_that_fails_looks_whole_to_no_attempt():
    async def source():
        yield b"a"
        raise OSError("disk gone")

    requests = AioReplayedRequests(source(), None)
    for _ in range(2):
        reader = requests.reader()
        assert await anext(reader) == b"a"
        with pytest.raises(OSError, match="disk gone"):
            await anext(reader)


def test_a_replica_that_missed_the_first_hello_hears_another():
    plain = EchoServer()
    target, port = plain.target, plain.port
    plain.stop()
    directory = FixedDirectory({"echo": [target]})
    with Channel(directory, "echo", retry=None, ejection=None) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        with pytest.raises(shoal.CallError):
            stub.Echo(echo_pb2.EchoRequest(), timeout=5.0)
        server = shoal.Server("echo", health=False, reflection=False)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            eventually(lambda: server.roster.remaining == 1)
        finally:
            server.stop(0).wait()
