"""Which replicas a channel has: none, dead ones, ones that leave and come back."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace

import grpc
import pytest

import shoal
from shoal.channel import Channel, replica_of
from shoal.testing import FixedDirectory
from shoal_balancer import Replica, RoundRobin, Status
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.echo import EchoServer
from tests.support.listening import listener
from tests.support.waiting import eventually

__all__ = ["listener"]

DEADLINE = 30.0
CALLS = {
    "unary": lambda stub, **o: stub.EchoOnce(pb.EchoRequest(), **o),
    "with_call": lambda stub, **o: stub.EchoOnce.with_call(pb.EchoRequest(), **o)[0],
    "future": lambda stub, **o: stub.EchoOnce.future(pb.EchoRequest(), **o).result(DEADLINE),
    "up": lambda stub, **o: stub.EchoUp(iter([pb.EchoRequest()]), **o),
    "down": lambda stub, **o: next(stub.EchoDown(pb.EchoRequest(), **o)),
    "both": lambda stub, **o: next(stub.EchoBoth(iter([pb.EchoRequest()]), **o)),
}


def replica(server, **facts):
    return Replica(server.servicer.name, "127.0.0.1", server.port, **facts)


@pytest.mark.parametrize("kind", CALLS)
def test_no_replica(channels, kind):
    stub = echo_pb2_grpc.EchoStub(channels(where=FixedDirectory({"echo": []})))
    with pytest.raises(shoal.CallError) as caught:
        CALLS[kind](stub, timeout=DEADLINE)
    error = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "service 'echo'" in error.details()
    assert "fixed:/services/echo lists 0" in error.details()
    assert error.attempts == ()
    assert replica_of(error) is None


def test_no_replica_but_draining_ones(servers, channels):
    directory = FixedDirectory({"echo": [replica(servers[0], status=Status.DRAINING)]})
    with pytest.raises(shoal.CallError, match="lists 1, 1 of them draining or disabled"):
        echo_pb2_grpc.EchoStub(channels(where=directory)).Echo(pb.EchoRequest())


@pytest.mark.parametrize("kind", CALLS)
def test_waiting_for_a_replica_ends_with_the_deadline(channels, kind):
    stub = echo_pb2_grpc.EchoStub(channels(where=FixedDirectory()))
    with pytest.raises(grpc.RpcError) as caught:
        CALLS[kind](stub, timeout=0.3, wait_for_ready=True)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "service 'echo'" in caught.value.details()


@pytest.mark.parametrize("retry", [shoal.Retry(), None], ids=["retry", "no-retry"])
@pytest.mark.parametrize("kind", CALLS)
def test_waiting_for_a_replica_that_appears(servers, channels, kind, retry):
    directory = FixedDirectory()
    stub = echo_pb2_grpc.EchoStub(channels(where=directory, retry=retry))
    timer = threading.Timer(0.2, lambda: directory.set("echo", [servers[0].target]))
    timer.start()
    assert CALLS[kind](stub, timeout=DEADLINE, wait_for_ready=True).server == "a"
    timer.join()


@pytest.mark.parametrize("retry", [shoal.Retry(), None], ids=["retry", "no-retry"])
@pytest.mark.parametrize("kind", CALLS)
def test_waiting_with_one_dead_of_two(servers, channels, kind, retry):
    gone = EchoServer("gone")
    gone.stop()
    directory = FixedDirectory({"echo": [gone.target, servers[0].target]})
    # Without ejection and in turn, so that every other call goes to the dead one first.
    channel = channels(where=directory, policy=RoundRobin(), ejection=None, retry=retry)
    stub = echo_pb2_grpc.EchoStub(channel)

    def longest_of_twenty():
        longest = 0.0
        for _ in range(20):
            began = time.monotonic()
            CALLS[kind](stub, timeout=DEADLINE, wait_for_ready=True)
            longest = max(longest, time.monotonic() - began)
        return longest

    # A machine that is busy elsewhere may stall any call; the channel would do so in every round.
    rounds = (longest_of_twenty() for _ in range(5))
    assert any(longest < 0.2 for longest in rounds)


@pytest.mark.parametrize("kind", CALLS)
def test_waiting_while_all_are_dead(channels, kind):
    gone = [EchoServer(name) for name in "xy"]
    for server in gone:
        server.stop()
    channel = channels(where=FixedDirectory({"echo": [server.target for server in gone]}))
    stub = echo_pb2_grpc.EchoStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        CALLS[kind](stub, timeout=1.0, wait_for_ready=True)
    assert caught.value.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )
    # Slower and slower, not in a loop.
    assert 2 <= len(caught.value.attempts) < 40


def test_waiting_until_a_dead_one_comes_up(channels):
    server = EchoServer("late")
    server.stop()
    channel = channels(
        where=FixedDirectory({"echo": [server.target]}),
        options=[("grpc.initial_reconnect_backoff_ms", 100)],
    )
    future = echo_pb2_grpc.EchoStub(channel).EchoOnce.future(
        pb.EchoRequest(), timeout=DEADLINE, wait_for_ready=True
    )
    with EchoServer("late", port=server.port):
        assert future.result(DEADLINE).server == "late"


def test_a_call_in_flight_survives_the_removal_of_its_replica(servers, channels):
    directory = FixedDirectory({"echo": [replica(server) for server in servers]})
    channel = Channel(directory, "echo")
    # The reserve is shortened, so that its end lies within the call.
    channel.pool._reserve = channel.pool.balancer._reserve = 0.2
    stub = echo_pb2_grpc.EchoStub(channel)
    inside, go = threading.Event(), threading.Event()

    def script(_):
        inside.set()
        go.wait(DEADLINE)

    for server in servers:
        server.servicer.script = script
    stream = stub.EchoDown(pb.EchoRequest(answers=2), timeout=DEADLINE)
    assert inside.wait(DEADLINE)
    serving = replica_of(stream)
    node = next(n for n in channel.pool.balancer.snapshot.nodes if n.replica == serving)
    directory.set("echo", [replica(s) for s in servers if s.port != serving.port])
    eventually(lambda: not channel.pool.balancer.snapshot.reserve)
    assert node.retired
    assert not node.endpoint.closed
    go.set()
    assert len(list(stream)) == 2
    # And now its connection goes.
    eventually(lambda: node.endpoint.closed)
    channel.close()


def test_a_removed_replica_gets_no_further_call_and_keeps_its_connection_for_a_while(
    servers, channels
):
    directory = FixedDirectory({"echo": [replica(server) for server in servers]})
    channel = channels(where=directory, policy=RoundRobin())
    stub = echo_pb2_grpc.EchoStub(channel)
    for _ in range(6):
        stub.Echo(pb.EchoRequest())
    (node,) = (n for n in channel.pool.balancer.snapshot.nodes if n.replica.id == "a")
    directory.set("echo", [replica(server) for server in servers[1:]])
    assert {stub.Echo(pb.EchoRequest()).server for _ in range(6)} == {"b", "c"}
    assert not node.endpoint.closed
    directory.set("echo", [replica(server) for server in servers])
    assert {stub.Echo(pb.EchoRequest()).server for _ in range(6)} == {"a", "b", "c"}
    assert node in channel.pool.balancer.snapshot.nodes


def test_calls_survive_a_list_that_changes_all_the_time(servers, channels):
    directory = FixedDirectory({"echo": [replica(server) for server in servers]})
    channel = channels(where=directory, retry=None)
    channel.pool._reserve = channel.pool.balancer._reserve = 0.02
    stub = echo_pb2_grpc.EchoStub(channel)
    stop = threading.Event()
    failures = []
    served = set()

    def call():
        while not stop.is_set():
            try:
                served.add(stub.EchoOnce(pb.EchoRequest(), timeout=DEADLINE).server)
            except (grpc.RpcError, ValueError) as error:
                failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 2.0
    turn = 0
    while time.monotonic() < until:
        turn += 1
        directory.set("echo", [replica(s) for n, s in enumerate(servers) if (turn + n) % 3])
        stop.wait(0.01)
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert failures == []
    assert served == {"a", "b", "c"}
    nodes = channel.pool.balancer.snapshot.everyone().values()
    assert all(node.in_flight == 0 for node in nodes)


def test_hello_is_said_once_for_each_channel(listener, channels):
    directory = FixedDirectory({"echo": [listener.replica]})
    for number in (1, 2):
        stub = echo_pb2_grpc.EchoStub(channels(where=directory))
        for _ in range(3):
            stub.Echo(pb.EchoRequest())
        eventually(lambda number=number: len(listener.heard) == number)
    assert listener.words == ["hello", "hello"]
    assert len({caller for _, caller in listener.heard}) == 2


def test_a_channel_that_closes_says_goodbye(listener):
    for _ in range(5):
        with Channel(FixedDirectory({"echo": [listener.replica]}), "echo") as channel:
            echo_pb2_grpc.EchoStub(channel).Echo(pb.EchoRequest())
    assert listener.words == ["hello", "released"] * 5


def test_goodbye_never_overtakes_hello(listener):
    listener.slow = 0.2
    with Channel(FixedDirectory({"echo": [listener.replica]}), "echo") as channel:
        echo_pb2_grpc.EchoStub(channel).Echo(pb.EchoRequest())
    assert listener.words == ["hello", "released"]


def test_closing_does_not_wait_for_a_replica_that_hears_nothing(listener):
    listener.slow = DEADLINE / 10
    channel = Channel(FixedDirectory({"echo": [listener.replica]}), "echo")
    echo_pb2_grpc.EchoStub(channel).Echo(pb.EchoRequest())
    began = time.monotonic()
    channel.close()
    assert time.monotonic() - began < 2.5
    assert listener.words in ([], ["hello"])


def test_a_draining_replica_hears_goodbye_after_the_last_call(listener, channels):
    directory = FixedDirectory({"echo": [listener.replica]})
    stub = echo_pb2_grpc.EchoStub(channels(where=directory))
    go = threading.Event()

    def sent():
        yield pb.EchoRequest()
        go.wait(DEADLINE)

    call = stub.EchoBoth(sent(), timeout=DEADLINE)
    next(call)
    # Said on its own, and perhaps heard a little later.
    eventually(lambda: listener.words == ["hello"])
    directory.set("echo", [replace(listener.replica, status=Status.DRAINING)])
    with pytest.raises(shoal.CallError, match="draining"):
        stub.Echo(pb.EchoRequest())
    assert listener.words == ["hello"]
    go.set()
    assert list(call) == []
    eventually(lambda: listener.words == ["hello", "released"])


def test_a_replica_that_came_back_on_its_port_is_greeted_again(listener, channels):
    first = replace(listener.replica, registered_at=1.0)
    directory = FixedDirectory({"echo": [first]})
    stub = echo_pb2_grpc.EchoStub(channels(where=directory))
    stub.Echo(pb.EchoRequest())
    directory.set("echo", [replace(first, registered_at=2.0)])
    eventually(lambda: listener.words == ["hello", "hello"])


class Nothing(grpc.UnaryUnaryClientInterceptor):
    """Makes grpc build a method object for each call."""

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(details, request)


def test_interceptors_leave_nothing_behind(servers, channels):
    channel = channels()
    stub = echo_pb2_grpc.EchoStub(grpc.intercept_channel(channel, Nothing()))
    for _ in range(60):
        stub.Echo(pb.EchoRequest())
    gc.collect()
    kept = sum(len(n.endpoint.callables) for n in channel.pool.balancer.snapshot.nodes)
    assert kept == 0


def test_dropped_streams_are_cancelled(servers, channels):
    ended = threading.Event()
    for server in servers:
        server.servicer.script = lambda context: context.add_callback(ended.set)
    channel = channels()
    call = echo_pb2_grpc.EchoStub(channel).EchoDown(pb.EchoRequest(answers=10**7))
    next(call)
    del call
    gc.collect()
    assert ended.wait(DEADLINE)
    nodes = channel.pool.balancer.snapshot.nodes
    eventually(lambda: all(node.in_flight == 0 for node in nodes))


def test_connectivity_follows_the_list(servers, channels):
    directory = FixedDirectory()
    channel = channels(where=directory)
    seen = []
    channel.subscribe(seen.append)
    directory.set("echo", [servers[0].target])
    channel.close()
    states = grpc.ChannelConnectivity
    assert seen == [states.IDLE, states.READY, states.SHUTDOWN]


def test_the_channel_says_what_it_is(servers, channels):
    assert "shoal.Channel echo" in repr(channels())


def test_closing_a_directory_closes_its_channels(servers):
    with FixedDirectory({"echo": [servers[0].target]}) as directory:
        stub = echo_pb2_grpc.EchoStub(directory.channel("echo"))
        stub.Echo(pb.EchoRequest())
    with pytest.raises(ValueError, match="closed"):
        stub.Echo(pb.EchoRequest())
    with pytest.raises(shoal.DirectoryClosedError):
        directory.channel("echo")


@pytest.mark.parametrize("method", ["EchoDown", "EchoBoth"])
def test_cancelling_a_stream_that_waits_for_a_replica(channels, method):
    stub = echo_pb2_grpc.EchoStub(channels(where=FixedDirectory()))
    sent = iter([pb.EchoRequest()]) if method == "EchoBoth" else pb.EchoRequest()
    call = getattr(stub, method)(sent, timeout=DEADLINE, wait_for_ready=True)
    assert call.is_active()
    timer = threading.Timer(0.1, call.cancel)
    timer.start()
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    timer.join()
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert call.code() is grpc.StatusCode.CANCELLED
    assert not call.is_active()
