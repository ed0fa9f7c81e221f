"""Callers that see each other's calls through the reports of real servers."""

import threading

import grpc
import pytest

import shoal
from shoal.channel import Channel
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import Echo
from tests.support.waiting import eventually

REQUEST = echo_pb2.EchoRequest(payload=b"x")


@pytest.fixture
def servers():
    """Two that report their load, and hold calls that say so until they are let go."""
    made = []
    for name in "ab":
        servicer = Echo(name)
        servicer.go = threading.Event()
        servicer.held = []

        def script(context, servicer=servicer):
            if "hold" in dict(context.invocation_metadata()):
                servicer.held.append(1)
                servicer.go.wait(30.0)

        servicer.script = script
        server = shoal.Server("echo", workers=8, load_reports=True, linger=0.1)
        echo_pb2_grpc.add_EchoServicer_to_server(servicer, server)
        with FixedDirectory() as directory:
            servicer.target = server.serve(directory).target
        made.append((server, servicer))
    yield [servicer for _, servicer in made]
    for server, servicer in made:
        servicer.go.set()
        server.stop(0).wait(30.0)


def test_a_caller_keeps_away_from_a_replica_that_others_keep_busy(servers):
    busy, idle = servers
    with grpc.insecure_channel(busy.target) as other:
        stub = echo_pb2_grpc.EchoStub(other)
        calls = [stub.Echo.future(REQUEST, metadata=(("hold", "1"),)) for _ in range(6)]
        eventually(lambda: len(busy.held) == 6)
        directory = FixedDirectory({"echo": [busy.target, idle.target]})
        with Channel(directory, "echo", policy=shoal.LeastReported()) as channel:
            mine = echo_pb2_grpc.EchoStub(channel)
            found = [mine.Echo(REQUEST).server for _ in range(60)]
        # Once it has heard of both, hardly ever: what it knows grows old where this process stalls.
        assert found[found.index("b") + 2 :].count("a") <= 5
        busy.go.set()
        assert [call.result(30.0).server for call in calls] == ["a"] * 6


def test_without_reports_it_would_not_know(servers):
    busy, idle = servers
    with grpc.insecure_channel(busy.target) as other:
        stub = echo_pb2_grpc.EchoStub(other)
        calls = [stub.Echo.future(REQUEST, metadata=(("hold", "1"),)) for _ in range(6)]
        eventually(lambda: len(busy.held) == 6)
        directory = FixedDirectory({"echo": [busy.target, idle.target]})
        with Channel(directory, "echo", policy=shoal.LeastLoaded()) as channel:
            mine = echo_pb2_grpc.EchoStub(channel)
            found = [mine.Echo(REQUEST).server for _ in range(60)]
        assert 10 <= found.count("a") <= 50
        busy.go.set()
        assert [call.result(30.0).server for call in calls] == ["a"] * 6
