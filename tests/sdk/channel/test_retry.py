"""What is sent again, where to, how often, and what the caller is told in the end."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

import grpc
import pytest

import shoal
from shoal.channel import Channel, replica_of, where
from shoal.retry import Retry, broke, never_connected
from shoal.testing import FixedDirectory
from shoal_balancer import Replica, RetryBudget, RoundRobin
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.sdk.channel.stubs import DEADLINE, ONCE, SAFE, UNSAFE
from tests.support.echo import EchoProcess, EchoServer
from tests.support.failing import UNAVAILABLE, Failing, budget, quick
from tests.support.waiting import eventually


@pytest.mark.parametrize("kind", SAFE)
def test_a_safe_method_is_sent_to_another_replica_each_time(servers, stubs, kind):
    failing = Failing(servers, 2)
    answer = SAFE[kind](stubs(retry=quick()), timeout=DEADLINE)
    assert answer.payload == b"x"
    assert sorted(failing.where) == ["a", "b", "c"]
    assert failing.numbers == [None, "2", "3"]


@pytest.mark.parametrize("kind", UNSAFE)
def test_a_method_without_a_promise_is_never_sent_twice(servers, stubs, kind):
    failing = Failing(servers, 1)
    with pytest.raises(grpc.RpcError) as caught:
        UNSAFE[kind](stubs(retry=quick()), timeout=DEADLINE)
    assert caught.value.code() is UNAVAILABLE
    assert caught.value.details() == "down"
    assert caught.value.why == "the method is not declared idempotent"
    assert len(failing.where) == 1


@pytest.mark.parametrize("kind", UNSAFE)
def test_the_caller_may_promise_it(servers, stubs, kind):
    failing = Failing(servers, 1)
    stub = stubs(retry=quick(safe=(ONCE,)))
    assert UNSAFE[kind](stub, timeout=DEADLINE).payload == b"x"
    assert len(set(failing.where)) == 2


@pytest.mark.parametrize("kind", UNSAFE)
def test_what_a_server_refused_goes_elsewhere_whatever_the_method(servers, stubs, kind):
    failing = Failing(
        servers,
        2,
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        trailers=(("shoal-refused", "full"),),
    )
    assert UNSAFE[kind](stubs(retry=quick()), timeout=DEADLINE).payload == b"x"
    assert sorted(failing.where) == ["a", "b", "c"]


def test_refused_by_all(servers, stubs):
    failing = Failing(servers, 99, trailers=(("shoal-refused", "draining"),))
    with pytest.raises(shoal.CallError) as caught:
        stubs(retry=quick(attempts=1)).EchoOnce(pb.EchoRequest(), timeout=DEADLINE)
    assert sorted(failing.where) == ["a", "b", "c"]
    assert caught.value.why == "no replica is left to try"


def test_refused_by_a_servers_own_handler(servers, stubs):
    for server in servers[:2]:
        server.servicer.script = lambda context: shoal.refuse(context, "no slot is free")
    answer = stubs(retry=quick()).EchoOnce(pb.EchoRequest(), timeout=DEADLINE)
    assert answer.server == "c"


@pytest.mark.parametrize("kind", UNSAFE)
def test_what_was_never_sent_goes_elsewhere_whatever_the_method(servers, kind):
    gone = EchoServer("gone")
    gone.stop()
    directory = FixedDirectory({"echo": [gone.target, servers[0].target]})
    for _ in range(6):
        with Channel(directory, "echo", policy=RoundRobin()) as channel:
            stub = echo_pb2_grpc.EchoStub(channel)
            assert UNSAFE[kind](stub, timeout=DEADLINE).payload == b"x"
    assert len(servers[0].seen) == 6


def test_words_alone_do_not_prove_that_nothing_was_sent(servers, stubs):
    # A handler passes an error of its own callee on.
    failing = Failing(servers, 1, details="failed to connect to all addresses; last error: …")
    with pytest.raises(shoal.CallError):
        stubs(retry=quick()).EchoOnce(pb.EchoRequest(), timeout=DEADLINE)
    assert len(failing.where) == 1


@pytest.mark.parametrize("kind", SAFE)
def test_retries_off(servers, stubs, kind):
    failing = Failing(servers, 1)
    with pytest.raises(grpc.RpcError) as caught:
        SAFE[kind](stubs(retry=None), timeout=DEADLINE)
    assert caught.value.why == "retries are off"
    assert len(failing.where) == 1


@pytest.mark.parametrize("kind", SAFE)
def test_the_last_error_lists_every_attempt(servers, stubs, kind):
    Failing(servers, 99)
    with pytest.raises(shoal.CallError) as caught:
        SAFE[kind](stubs(retry=quick()), timeout=DEADLINE)
    error = caught.value
    assert error.code() is UNAVAILABLE
    assert error.why == "attempts are used up"
    assert len({attempt.replica.id for attempt in error.attempts}) == 3
    assert all(attempt.code is UNAVAILABLE for attempt in error.attempts)
    assert all(attempt.details == "down" for attempt in error.attempts)
    for number, server in enumerate(error.attempts, 1):
        assert f"{number}. {server.replica.id}" in error.details()
    assert error.details().startswith("down (3 attempts, then attempts are used up: ")
    assert replica_of(error) == error.attempts[-1].replica


@pytest.mark.parametrize("kind", SAFE)
def test_other_codes_are_not_retried(servers, stubs, kind):
    failing = Failing(servers, 1, code=grpc.StatusCode.INTERNAL)
    with pytest.raises(grpc.RpcError) as caught:
        SAFE[kind](stubs(retry=quick()), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert len(failing.where) == 1


def test_codes_can_be_named(servers, stubs):
    failing = Failing(servers, 1, code=grpc.StatusCode.ABORTED)
    retry = quick(codes=frozenset({grpc.StatusCode.ABORTED}))
    assert stubs(retry=retry).Echo(pb.EchoRequest(), timeout=DEADLINE).server
    assert len(failing.where) == 2


def test_a_servers_own_deadline_is_an_answer(servers, stubs):
    failing = Failing(servers, 1, code=grpc.StatusCode.DEADLINE_EXCEEDED)
    with pytest.raises(shoal.CallError) as caught:
        stubs(retry=quick()).Echo(pb.EchoRequest(), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(failing.where) == 1


def test_more_attempts_than_replicas_go_round_again(servers, directory, stubs):
    directory.set("echo", [server.target for server in servers[:2]])
    failing = Failing(servers, 3)
    assert stubs(retry=quick(attempts=4)).Echo(pb.EchoRequest(), timeout=DEADLINE)
    assert failing.where[0] != failing.where[1]
    assert len(failing.where) == 4


@pytest.mark.parametrize("kind", ["unary", "future", "down"])
def test_the_budget_ends_retries(servers, stubs, kind):
    failing = Failing(servers, 99)
    stub = stubs(retry=quick(attempts=5, budget=budget(3)))
    with pytest.raises(grpc.RpcError) as caught:
        SAFE[kind](stub, timeout=DEADLINE)
    assert caught.value.why == "the retry budget is empty"
    assert len(failing.where) == 4
    with pytest.raises(grpc.RpcError):
        SAFE[kind](stub, timeout=DEADLINE)
    assert len(failing.where) == 5


def test_calls_earn_retries(servers, stubs):
    earned = RetryBudget(
        ratio=0.5, per_second=0.0, ttl=600, clock=time.monotonic, lock=threading.Lock()
    )
    stub = stubs(retry=quick(budget=earned))
    for kind in SAFE:
        SAFE[kind](stub, timeout=DEADLINE)
    assert earned.balance() == len(SAFE) / 2


@pytest.mark.parametrize("kind", ["unary", "with_call", "future", "up"])
def test_an_attempts_own_timeout_leaves_time_for_another(servers, stubs, kind):
    go = threading.Event()
    servers[0].servicer.script = servers[1].servicer.script = lambda _: go.wait(DEADLINE)
    stub = stubs(retry=quick(attempt_timeout=0.25))
    try:
        assert SAFE[kind](stub, timeout=DEADLINE).server == "c"
    finally:
        go.set()


def test_an_attempts_own_timeout_does_not_repeat_the_unsafe(servers, stubs):
    go = threading.Event()
    for server in servers:
        server.servicer.script = lambda _: go.wait(DEADLINE)
    with pytest.raises(shoal.CallError) as caught:
        stubs(retry=quick(attempt_timeout=0.1)).EchoOnce(pb.EchoRequest(), timeout=DEADLINE)
    go.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert sum(len(server.seen) for server in servers) == 1


@pytest.mark.parametrize("kind", SAFE)
def test_one_deadline_for_all_attempts(servers, stubs, kind):
    remaining = []
    go = threading.Event()

    def script(context):
        remaining.append(context.time_remaining())
        if len(remaining) < 3:
            context.abort(UNAVAILABLE, "down")
        go.wait(DEADLINE)

    for server in servers:
        server.servicer.script = script
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        SAFE[kind](stubs(retry=quick(attempts=9, backoff=0.2)), timeout=0.8)
    go.set()
    assert time.monotonic() - began < DEADLINE / 2
    # Backoff may use the time up before the third attempt.
    assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, UNAVAILABLE)
    assert all(rest < 1.2 for rest in remaining)


def test_pushback_is_waited_for(servers, stubs):
    Failing(servers, 1, trailers=(("grpc-retry-pushback-ms", "300"),))
    began = time.monotonic()
    stubs(retry=quick()).Echo(pb.EchoRequest(), timeout=DEADLINE)
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("value", ["-1", "soon"])
def test_pushback_forbids(servers, stubs, value):
    failing = Failing(servers, 1, trailers=(("grpc-retry-pushback-ms", value),))
    with pytest.raises(shoal.CallError) as caught:
        stubs(retry=quick()).Echo(pb.EchoRequest(), timeout=DEADLINE)
    assert caught.value.why == "the server forbids a retry"
    assert len(failing.where) == 1


def test_pushback_beyond_the_deadline_ends_the_call_at_once(servers, stubs):
    Failing(servers, 1, trailers=(("grpc-retry-pushback-ms", "60000"),))
    began = time.monotonic()
    with pytest.raises(shoal.CallError) as caught:
        stubs(retry=quick()).Echo(pb.EchoRequest(), timeout=20)
    assert caught.value.why == "the deadline leaves no time"
    assert time.monotonic() - began < 15


def test_every_retry_leaves_a_line(servers, stubs, caplog):
    caplog.set_level(logging.INFO, logger="shoal.retry")
    Failing(servers, 2)
    stubs(retry=quick()).Echo(pb.EchoRequest(), timeout=DEADLINE)
    lines = [record.getMessage() for record in caplog.records if record.name == "shoal.retry"]
    assert len(lines) == 2
    assert "/shoal.testing.v1.Echo/Echo" in lines[0]
    assert "UNAVAILABLE: down" in lines[0]


def test_nothing_stays_in_flight(servers, channels):
    channel = channels(retry=quick())
    stub = echo_pb2_grpc.EchoStub(channel)
    Failing(servers, 2)
    for kind in SAFE:
        call = SAFE[kind]
        call(stub, timeout=DEADLINE)
    stub.EchoDown(pb.EchoRequest(answers=1000), timeout=DEADLINE).cancel()
    nodes = channel.pool.balancer.snapshot.nodes
    eventually(lambda: all(node.in_flight == 0 for node in nodes))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"attempts": 0}, ValueError),
        ({"backoff": -1.0}, ValueError),
        ({"backoff": 2.0, "max_backoff": 1.0}, ValueError),
        ({"attempt_timeout": 0.0}, ValueError),
        ({"safe": ONCE}, TypeError),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong, problem):
    with pytest.raises(problem):
        Retry(**wrong)


def test_replica_of(servers, stubs):
    stub = stubs()
    answer, call = stub.Echo.with_call(pb.EchoRequest())
    by_target = {server.target: server.servicer.name for server in servers}
    assert by_target[replica_of(call).target] == answer.server
    future = stub.Echo.future(pb.EchoRequest())
    assert by_target[replica_of(future).target if future.result() else ""] == future.result().server
    stream = stub.EchoDown(pb.EchoRequest())
    (message,) = list(stream)
    assert by_target[replica_of(stream).target] == message.server
    assert replica_of(object()) is None


def test_a_filter(servers, channels):
    directory = FixedDirectory()
    facts = [{"version": "1"}, {"version": "2"}, {"version": "2", "metadata": {"gpu": "yes"}}]
    directory.set(
        "echo",
        [
            Replica(server.servicer.name, "127.0.0.1", server.port, **each)
            for server, each in zip(servers, facts, strict=True)
        ],
    )

    def served(**wanted):
        channel = channels(where=directory, filter=where(**wanted), policy=RoundRobin())
        stub = echo_pb2_grpc.EchoStub(channel)
        return {stub.Echo(pb.EchoRequest(), timeout=DEADLINE).server for _ in range(6)}

    assert served() == {"a", "b", "c"}
    assert served(version="2") == {"b", "c"}
    assert served(version="2", metadata={"gpu": "yes"}) == {"c"}
    with pytest.raises(shoal.CallError, match=r"0 match this channel's filter") as caught:
        served(zone="nowhere")
    assert caught.value.code() is UNAVAILABLE


def test_a_full_service_is_not_asked_replica_by_replica(servers, stubs):
    failing = Failing(servers, 99, trailers=(("shoal-refused", "full"),))
    with pytest.raises(shoal.CallError) as caught:
        stubs(retry=quick(refusals=2)).EchoOnce(pb.EchoRequest(), timeout=DEADLINE)
    assert len(set(failing.where)) == len(failing.where) == 2
    assert caught.value.why == "no replica is left to try"


def test_what_broke_with_its_connection_is_tried_elsewhere_without_a_wait():
    with EchoProcess("a", hold=60.0) as dying, EchoServer("b") as other:
        directory = FixedDirectory({"echo": [dying.target, other.target]})
        retry = Retry(backoff=600.0, max_backoff=600.0)
        with Channel(directory, "echo", retry=retry, policy=RoundRobin()) as channel:
            stub = echo_pb2_grpc.EchoStub(channel)
            # In turns: one of the two meets the replica that dies.
            calls = [stub.Echo.future(pb.EchoRequest(), timeout=DEADLINE) for _ in range(2)]
            dying.arrived()
            dying.kill()
            assert [call.result().server for call in calls] == ["b", "b"]


@pytest.mark.parametrize(
    ("code", "details", "says"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", True),
        (grpc.StatusCode.UNAVAILABLE, "Stream removed (Socket closed)", True),
        (grpc.StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer", True),
        (grpc.StatusCode.UNAVAILABLE, "the store is away", False),
        (grpc.StatusCode.UNAVAILABLE, None, False),
        (grpc.StatusCode.INTERNAL, "Socket closed", False),
    ],
)
def test_the_cores_words_tell_of_a_connection_that_broke(code, details, says):
    assert broke(code, details) is says


def test_retries_change_for_calls_that_begin_from_then_on(servers, channels):
    channel = channels(retry=quick(attempts=2))
    stub = echo_pb2_grpc.EchoStub(channel)

    def attempts():
        failing = Failing(servers, 100)
        with pytest.raises(grpc.RpcError):
            stub.Echo(pb.EchoRequest(), timeout=DEADLINE)
        return len(failing.where)

    assert attempts() == 2
    channel.retune(replace(channel.retry, attempts=3))
    assert attempts() == 3
    with pytest.raises(ValueError, match="on or off"):
        channel.retune(None)
    assert channel.retry.attempts == 3


def test_words_that_name_the_replica_prove_that_nothing_was_sent_though_it_is_there_by_now():
    gone, other = EchoServer("gone"), EchoServer("other")
    gone.stop()
    other.stop()
    with grpc.insecure_channel(gone.target) as channel, pytest.raises(grpc.RpcError) as caught:
        echo_pb2_grpc.EchoStub(channel).EchoOnce(pb.EchoRequest(), timeout=DEADLINE)
    said = (caught.value.code(), caught.value.details())

    assert never_connected(*said, connected=False, target=gone.target)
    # It came up between the failure and the look.
    assert never_connected(*said, connected=True, target=gone.target)
    # A handler of another one passes on what it heard of this one.
    assert not never_connected(*said, connected=True, target=other.target)
    assert not never_connected(said[0], said[1][1:], connected=False, target=gone.target)
