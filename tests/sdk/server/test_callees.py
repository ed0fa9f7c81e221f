"""A replica tells whom its process calls, and how it finds them."""

import asyncio

import grpc
import pytest

import shoal
import shoal.aio
from shoal.hellos import callees
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc
from tests.support.echo import Echo


def ask(target):
    with grpc.insecure_channel(target) as channel:
        stub = replica_pb2_grpc.ReplicaStub(channel)
        return stub.Callees(replica_pb2.CalleesRequest(), timeout=10.0).callees


@pytest.fixture
def echo():
    """An echo server, and the directory in which it is announced."""
    with FixedDirectory() as directory:
        server = shoal.Server("echo", id="echo-1")
        echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
        replica = server.serve(directory)
        yield directory, replica
        server.drain(linger=0.0, grace=0.0)


def test_calls_of_the_process_are_told(echo):
    directory, replica = echo
    server = shoal.Server("front", id="front-1")
    front = server.serve(directory)
    try:
        assert list(ask(front.target)) == []
        with directory.channel("echo") as channel, directory.channel("echo") as other:
            stubs = [echo_pb2_grpc.EchoStub(each) for each in (channel, other)]
            for stub in [*stubs, stubs[0]]:
                stub.Echo(echo_pb2.EchoRequest(), timeout=10.0)
            (found,) = ask(front.target)
            assert (found.service, found.replica_id, found.target) == (
                "echo",
                "echo-1",
                replica.target,
            )
            # Over both channels.
            assert (found.calls, found.failures, found.in_flight) == (3, 0, 0)
            assert 0.0 < found.latency_seconds < 10.0
            assert found.reachable
            assert not found.ejected
        assert list(ask(front.target)) == []
    finally:
        server.drain(linger=0.0, grace=0.0)


async def test_an_asyncio_server_tells_too(echo):

    directory, _ = echo
    server = shoal.aio.Server("front", id="front-1")
    front = await server.serve(directory)
    try:
        with directory.channel("echo") as channel:
            stub = echo_pb2_grpc.EchoStub(channel)
            await asyncio.to_thread(stub.Echo, echo_pb2.EchoRequest(), timeout=10.0)
            (found,) = await asyncio.to_thread(ask, front.target)
            assert found.calls == 1
    finally:
        await server.drain(linger=0.0, grace=0.0)


def test_who_was_never_called_is_not_told(echo):
    directory, _ = echo
    with directory.channel("echo"):
        assert not callees(directory.views()).callees
