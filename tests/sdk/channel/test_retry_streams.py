"""Streams and futures: what of them is sent again, and what a caller sees meanwhile."""

from __future__ import annotations

import threading

import grpc
import pytest

import shoal
from shoal.channel import replica_of
from shoal.replay import LIMIT
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.sdk.channel.stubs import DEADLINE, sent
from tests.support.failing import UNAVAILABLE, Failing, quick
from tests.support.waiting import eventually


@pytest.mark.parametrize("kind", ["down", "both"])
def test_a_stream_is_not_repeated_after_its_first_message(servers, stubs, kind):
    stub = stubs(retry=quick())
    if kind == "down":
        call = stub.EchoDown(pb.EchoRequest(answers=3, code=14, fail_after=1), timeout=DEADLINE)
    else:
        call = stub.EchoBoth(iter([pb.EchoRequest(), pb.EchoRequest(code=14)]), timeout=DEADLINE)
    next(call)
    with pytest.raises(shoal.CallError) as caught:
        next(call)
    assert caught.value.why == "messages were handed out already"
    assert sum(len(server.seen) for server in servers) == (1 if kind == "down" else 2)
    assert call.code() is UNAVAILABLE
    assert replica_of(call) is not None


def test_a_streams_callback_waits_for_the_attempt_that_counts(servers, stubs):
    Failing(servers, 1)
    call = stubs(retry=quick()).EchoDown(pb.EchoRequest(answers=2), timeout=DEADLINE)
    codes = []
    ended = threading.Event()
    call.add_callback(lambda: (codes.append(call.code()), ended.set()))
    assert len(list(call)) == 2
    assert ended.wait(DEADLINE)
    assert codes == [grpc.StatusCode.OK]


def test_a_streams_callback_comes_once_when_all_attempts_fail(servers, stubs):
    Failing(servers, 99)
    call = stubs(retry=quick()).EchoDown(pb.EchoRequest(answers=2), timeout=DEADLINE)
    heard = []
    call.add_callback(lambda: heard.append(call.code()))
    with pytest.raises(shoal.CallError):
        list(call)
    eventually(lambda: heard == [UNAVAILABLE])


def test_a_request_stream_is_repeated_whole(servers, stubs):
    def script(context):
        if len(servers[0].seen + servers[1].seen + servers[2].seen) == 1:
            context.abort(UNAVAILABLE, "down")

    for server in servers:
        server.servicer.script = script
    answer = stubs(retry=quick()).EchoUp(sent(b"1", b"2", b"3"), timeout=DEADLINE)
    assert answer.payload == b"123"


def test_a_request_stream_that_grew_too_long_is_not_repeated(servers, stubs):
    failing = Failing(servers, 1)
    piece = b"x" * (LIMIT // 4)
    with pytest.raises(shoal.CallError) as caught:
        stubs(retry=quick()).EchoUp(sent(*[piece] * 6), timeout=DEADLINE)
    assert "256 KiB" in caught.value.why
    assert len(failing.where) == 1
    answer = stubs(retry=quick()).EchoUp(sent(*[piece] * 6), timeout=DEADLINE)
    assert len(answer.payload) == 6 * len(piece)


def test_a_cancelled_future_is_not_repeated(servers, stubs):
    inside, go = threading.Event(), threading.Event()

    def script(_):
        inside.set()
        go.wait(DEADLINE)

    for server in servers:
        server.servicer.script = script
    future = stubs(retry=quick()).Echo.future(pb.EchoRequest(), timeout=DEADLINE)
    assert inside.wait(DEADLINE)
    assert future.cancel()
    eventually(future.done)
    go.set()
    assert sum(len(server.seen) for server in servers) == 1


def test_a_future_cancelled_between_attempts_ends_at_once(servers, stubs):
    failing = Failing(servers, 99, trailers=(("grpc-retry-pushback-ms", "20000"),))
    future = stubs(retry=quick()).Echo.future(pb.EchoRequest(), timeout=DEADLINE)
    eventually(lambda: failing.where and future._inner is None)
    assert future.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        future.result(DEADLINE)
    assert future.code() is grpc.StatusCode.CANCELLED


def test_a_stream_that_nobody_reads_is_not_in_flight_for_ever(servers, channels):
    channel = channels()
    echo_pb2_grpc.EchoStub(channel).EchoDown(pb.EchoRequest(answers=2), timeout=DEADLINE)
    nodes = channel.pool.balancer.snapshot.nodes
    eventually(lambda: all(node.in_flight == 0 for node in nodes))


def test_the_error_is_a_finished_call_and_future(servers, stubs):
    Failing(servers, 99, trailers=(("why", "so"),))
    with pytest.raises(shoal.CallError) as caught:
        stubs(retry=quick()).Echo(pb.EchoRequest(), timeout=DEADLINE)
    error = caught.value
    assert dict(error.trailing_metadata()) == {"why": "so"}
    assert dict(error.initial_metadata()) == {}
    assert error.done()
    assert not error.running()
    assert not error.is_active()
    assert not error.cancel()
    assert not error.cancelled()
    assert error.exception() is error
    assert error.time_remaining() == 0.0
    assert error.traceback() is error.__traceback__
    heard = []
    error.add_done_callback(heard.append)
    assert heard == [error]
    assert not error.add_callback(heard.clear)
    with pytest.raises(shoal.CallError):
        error.result()
    assert isinstance(error.__cause__, grpc.RpcError)
