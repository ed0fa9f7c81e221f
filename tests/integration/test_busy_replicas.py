"""Servers that say BUSY are spared by callers, over a real ZooKeeper."""

from __future__ import annotations

from collections import Counter

import pytest

import shoal
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import Echo
from tests.support.waiting import eventually

WAIT = 60.0
CALLS = 60


@pytest.fixture
def servers(directories):
    """Two of them, by name."""
    directory, made = directories(), {}
    for name in "ab":
        made[name] = shoal.Server("echo", id=name, linger=0.2, grace=5.0)
        echo_pb2_grpc.add_EchoServicer_to_server(Echo(name), made[name])
        made[name].serve(directory)
    yield made
    for each in made.values():
        assert each.stop(0).wait(WAIT)


def test_a_busy_server_is_spared_while_another_one_is_not(servers, directories):
    caller = directories()
    caller.ready("echo", count=2, timeout=WAIT)
    with caller.channel("echo", policy=shoal.RoundRobin(), slow_start=None) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)

        def served():
            request = echo_pb2.EchoRequest()
            return Counter(stub.Echo(request, timeout=WAIT).server for _ in range(CALLS))

        def say(**statuses):
            for name, status in statuses.items():
                servers[name].set_status(shoal.Status[status])
            eventually(
                lambda: (
                    {
                        each.replica.id: each.replica.status.name
                        for each in channel.snapshot().replicas
                    }
                    == statuses
                ),
                WAIT,
            )

        assert {*served()} == {"a", "b"}
        say(a="BUSY", b="UP")
        assert served() == {"b": CALLS}
        # One must not get everything because all are busy.
        say(a="BUSY", b="BUSY")
        assert {*served()} == {"a", "b"}
        say(a="UP", b="BUSY")
        assert served() == {"a": CALLS}
        # It is the last resort of those who lost the others.
        servers["a"].drain()
        assert served() == {"b": CALLS}
