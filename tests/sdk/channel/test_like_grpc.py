"""What grpc's own channel does, ours does: every test runs on both.

One list of behaviours in one file, so that what is missing in it can be seen.
"""

from __future__ import annotations

import threading
import time

import grpc
import pytest

from shoal.channel import Channel
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.waiting import eventually

DEADLINE = 30.0


@pytest.fixture
def server(servers):
    return servers[0]


@pytest.fixture(params=["grpc", "shoal"])
def connect(request, server):
    """Makes a channel of either kind to one server."""
    made = []

    def make(**options):
        if request.param == "grpc":
            made.append(grpc.insecure_channel(server.target, **options))
        else:
            made.append(Channel(FixedDirectory({"echo": [server.target]}), "echo", **options))
        return made[-1]

    yield make
    for channel in made:
        channel.close()


@pytest.fixture
def channel(connect):
    return connect()


@pytest.fixture
def stub(channel):
    return echo_pb2_grpc.EchoStub(channel)


def metadata_script(context):
    context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\x01")))
    context.set_trailing_metadata((("last", "2"), ("last-bin", b"\x02")))


def requests(*payloads, **facts):
    return iter([pb.EchoRequest(payload=payload, **facts) for payload in payloads])


CALLS = {
    "unary": lambda stub, **o: stub.Echo(pb.EchoRequest(payload=b"x"), **o),
    "with_call": lambda stub, **o: stub.Echo.with_call(pb.EchoRequest(payload=b"x"), **o)[0],
    "future": lambda stub, **o: stub.Echo.future(pb.EchoRequest(payload=b"x"), **o).result(30),
    "up": lambda stub, **o: stub.EchoUp(requests(b"x"), **o),
    "up_with_call": lambda stub, **o: stub.EchoUp.with_call(requests(b"x"), **o)[0],
    "up_future": lambda stub, **o: stub.EchoUp.future(requests(b"x"), **o).result(30),
    "down": lambda stub, **o: next(stub.EchoDown(pb.EchoRequest(payload=b"x"), **o)),
    "both": lambda stub, **o: next(stub.EchoBoth(requests(b"x"), **o)),
}
FAILURES = {
    "unary": lambda stub, code, **o: stub.EchoOnce(pb.EchoRequest(code=code), **o),
    "with_call": lambda stub, code, **o: stub.EchoOnce.with_call(pb.EchoRequest(code=code), **o),
    "future": lambda stub, code, **o: stub.EchoOnce.future(pb.EchoRequest(code=code), **o).result(
        30
    ),
    "up": lambda stub, code, **o: stub.EchoUp(requests(b"", code=code), **o),
    "down": lambda stub, code, **o: list(stub.EchoDown(pb.EchoRequest(code=code), **o)),
    "both": lambda stub, code, **o: list(stub.EchoBoth(requests(b"", code=code), **o)),
}


@pytest.mark.parametrize("kind", CALLS)
def test_responses(stub, kind):
    assert CALLS[kind](stub, timeout=DEADLINE).payload == b"x"


@pytest.mark.parametrize("kind", CALLS)
def test_without_a_deadline(stub, kind):
    assert CALLS[kind](stub).payload == b"x"


@pytest.mark.parametrize("kind", CALLS)
def test_the_callers_metadata_arrives(stub, server, kind):
    CALLS[kind](stub, timeout=DEADLINE, metadata=(("mine", "yes"), ("mine-bin", b"\xff")))
    ((_, seen),) = server.seen
    assert seen["mine"] == "yes"
    assert seen["mine-bin"] == b"\xff"
    assert "shoal-attempt" not in seen


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL])
def test_errors(stub, kind, code):
    with pytest.raises(grpc.RpcError) as caught:
        FAILURES[kind](stub, code.value[0], timeout=DEADLINE)
    error = caught.value
    assert error.code() is code
    assert error.details() == "a was told to fail"
    assert isinstance(error, grpc.Call)
    assert code.name in str(error)
    assert error.debug_error_string()


@pytest.mark.parametrize("kind", FAILURES)
def test_trailing_metadata_of_an_error(stub, server, kind):
    server.servicer.script = lambda context: context.set_trailing_metadata((("why", "so"),))
    with pytest.raises(grpc.RpcError) as caught:
        FAILURES[kind](stub, 9, timeout=DEADLINE)
    assert dict(caught.value.trailing_metadata()) == {"why": "so"}


def test_metadata_of_a_call(stub, server):
    server.servicer.script = metadata_script
    _, call = stub.Echo.with_call(pb.EchoRequest(), timeout=DEADLINE)
    check_metadata(call)


def test_metadata_of_a_request_stream(stub, server):
    server.servicer.script = metadata_script
    _, call = stub.EchoUp.with_call(requests(b"x"), timeout=DEADLINE)
    check_metadata(call)


@pytest.mark.parametrize("method", ["Echo", "EchoUp"])
def test_metadata_of_a_future(stub, server, method):
    server.servicer.script = metadata_script
    sent = requests(b"") if method == "EchoUp" else pb.EchoRequest()
    check_metadata(getattr(stub, method).future(sent, timeout=DEADLINE))


@pytest.mark.parametrize("method", ["EchoDown", "EchoBoth"])
def test_metadata_of_a_stream(stub, server, method):
    server.servicer.script = metadata_script
    sent = requests(b"") if method == "EchoBoth" else pb.EchoRequest()
    call = getattr(stub, method)(sent, timeout=DEADLINE)
    assert dict(call.initial_metadata())["first"] == "1"
    list(call)
    check_metadata(call)


def check_metadata(call):
    assert dict(call.initial_metadata()) == {"first": "1", "first-bin": b"\x00\x01"}
    assert dict(call.trailing_metadata()) == {"last": "2", "last-bin": b"\x02"}
    assert call.code() is grpc.StatusCode.OK
    assert not call.details()


def test_initial_metadata_comes_before_the_first_message(stub, server):
    go = threading.Event()

    def script(context):
        context.send_initial_metadata((("first", "1"),))
        go.wait(DEADLINE)

    server.servicer.script = script
    call = stub.EchoDown(pb.EchoRequest(), timeout=DEADLINE)
    assert dict(call.initial_metadata()) == {"first": "1"}
    assert call.is_active()
    go.set()
    assert len(list(call)) == 1


@pytest.mark.parametrize("method", ["EchoDown", "EchoBoth"])
def test_a_stream_from_call_to_end(stub, method):
    sent = requests(*[b"x"] * 3) if method == "EchoBoth" else pb.EchoRequest(answers=3)
    call = getattr(stub, method)(sent, timeout=DEADLINE)
    ended = threading.Event()
    assert call.add_callback(ended.set)
    assert 0.0 < call.time_remaining() <= DEADLINE
    assert iter(call) is call
    assert len(list(call)) == 3
    assert ended.wait(DEADLINE)
    assert not call.is_active()
    assert call.code() is grpc.StatusCode.OK
    with pytest.raises(StopIteration):
        next(call)
    assert not call.add_callback(ended.set)


def test_a_stream_that_fails_after_messages(stub):
    call = stub.EchoDown(pb.EchoRequest(answers=5, code=14, fail_after=2), timeout=DEADLINE)
    found = []
    with pytest.raises(grpc.RpcError) as caught:
        found.extend(message for message in call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.RpcError):
        next(call)


def test_messages_come_as_they_are_sent(stub):
    go = threading.Event()

    def sent():
        yield pb.EchoRequest(payload=b"1")
        go.wait(DEADLINE)
        yield pb.EchoRequest(payload=b"2")

    call = stub.EchoBoth(sent(), timeout=DEADLINE)
    assert next(call).payload == b"1"
    go.set()
    assert [message.payload for message in call] == [b"2"]


@pytest.mark.parametrize("method", ["EchoDown", "EchoBoth"])
def test_cancelling_a_stream(stub, method):
    sent = requests(*[b"x"] * 100) if method == "EchoBoth" else pb.EchoRequest(answers=10**6)
    call = getattr(stub, method)(sent, timeout=DEADLINE)
    next(call)
    ended = threading.Event()
    call.add_callback(ended.set)
    if method == "EchoDown":
        assert call.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert call.code() is grpc.StatusCode.CANCELLED
    else:
        list(call)
    assert ended.wait(DEADLINE)
    assert not call.is_active()


def test_a_future_from_call_to_end(stub):
    future = stub.Echo.future(pb.EchoRequest(work=0.2), timeout=DEADLINE)
    heard, ended = [], threading.Event()
    assert 0.0 < future.time_remaining() <= DEADLINE
    assert future.running()
    assert not future.done()
    assert future.is_active()
    future.add_done_callback(heard.append)
    assert future.add_callback(ended.set)
    assert future.result(DEADLINE).server == "a"
    assert ended.wait(DEADLINE)
    eventually(lambda: heard == [future])
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.exception() is None
    assert future.traceback() is None
    assert future.code() is grpc.StatusCode.OK
    assert not future.add_callback(ended.set)
    future.add_done_callback(heard.append)
    assert heard == [future, future]


def test_a_future_that_fails(stub):
    future = stub.EchoOnce.future(pb.EchoRequest(code=5), timeout=DEADLINE)
    error = future.exception(DEADLINE)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert future.code() is grpc.StatusCode.NOT_FOUND
    assert future.details() == "a was told to fail"
    assert not future.cancelled()
    with pytest.raises(grpc.RpcError):
        future.result(DEADLINE)


def test_a_future_waits_as_long_as_it_is_told(stub, server):
    go = threading.Event()
    server.servicer.script = lambda _: go.wait(DEADLINE)
    future = stub.Echo.future(pb.EchoRequest(), timeout=DEADLINE)
    with pytest.raises(grpc.FutureTimeoutError):
        future.result(0.05)
    with pytest.raises(grpc.FutureTimeoutError):
        future.exception(0.05)
    go.set()
    assert future.result(DEADLINE).server == "a"


@pytest.mark.parametrize("method", ["Echo", "EchoUp"])
def test_cancelling_a_future(stub, server, method):
    inside, go, cancelled = threading.Event(), threading.Event(), threading.Event()

    def script(context):
        context.add_callback(cancelled.set)
        inside.set()
        go.wait(DEADLINE)

    server.servicer.script = script
    sent = requests(b"") if method == "EchoUp" else pb.EchoRequest()
    future = getattr(stub, method).future(sent, timeout=DEADLINE)
    heard = threading.Event()
    future.add_done_callback(lambda _: heard.set())
    assert inside.wait(DEADLINE)
    assert future.cancel()
    assert heard.wait(DEADLINE)
    assert future.cancelled()
    assert future.done()
    assert future.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(grpc.FutureCancelledError):
        future.result(DEADLINE)
    with pytest.raises(grpc.FutureCancelledError):
        future.exception(DEADLINE)
    # The server hears of it while its handler still works.
    assert cancelled.wait(DEADLINE)
    go.set()


@pytest.mark.parametrize("kind", FAILURES)
def test_a_deadline_that_passes(stub, server, kind):
    go = threading.Event()
    server.servicer.script = lambda _: go.wait(DEADLINE)
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        FAILURES[kind](stub, 0, timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < DEADLINE / 2
    go.set()


def test_the_deadline_reaches_the_server(stub, server):
    remaining = []
    server.servicer.script = lambda context: remaining.append(context.time_remaining())
    stub.Echo(pb.EchoRequest(), timeout=20)
    assert 10 < remaining[0] < 21


@pytest.mark.parametrize("where", ["channel", "call"])
@pytest.mark.parametrize("kind", CALLS)
def test_compression(connect, server, kind, where):
    options = {"compression": grpc.Compression.Gzip}
    stub = echo_pb2_grpc.EchoStub(connect(**(options if where == "channel" else {})))
    CALLS[kind](stub, timeout=DEADLINE, **(options if where == "call" else {}))
    ((_, seen),) = server.seen
    # The core keeps grpc-encoding to itself; what it accepts is shown.
    assert "gzip" in seen.get("grpc-accept-encoding", "gzip")


def test_channel_options_pass_through(connect):
    stub = echo_pb2_grpc.EchoStub(connect(options=[("grpc.max_receive_message_length", 10)]))
    with pytest.raises(grpc.RpcError) as caught:
        stub.EchoOnce(pb.EchoRequest(payload=b"x" * 100), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_arguments_by_position(stub, server):
    given = (pb.EchoRequest(payload=b"x"), DEADLINE, (("mine", "1"),), None, False, None)
    assert stub.Echo(*given).payload == b"x"
    assert stub.Echo.with_call(*given)[0].payload == b"x"
    assert stub.Echo.future(*given).result(DEADLINE).payload == b"x"
    assert [message.payload for message in stub.EchoDown(*given)] == [b"x"]
    assert stub.EchoUp(requests(b"x"), *given[1:]).payload == b"x"
    assert stub.EchoUp.with_call(requests(b"x"), *given[1:])[0].payload == b"x"
    assert stub.EchoUp.future(requests(b"x"), *given[1:]).result(DEADLINE).payload == b"x"
    assert [message.payload for message in stub.EchoBoth(requests(b"x"), *given[1:])] == [b"x"]
    assert [seen["mine"] for _, seen in server.seen] == ["1"] * 8


@pytest.mark.parametrize("registered", [True, False])
def test_methods_made_as_stubs_make_them(channel, registered):
    facts = (pb.EchoRequest.SerializeToString, pb.EchoResponse.FromString)
    name = "/shoal.testing.v1.Echo/"
    one = channel.unary_unary(name + "Echo", *facts, registered)
    assert one(pb.EchoRequest(payload=b"x")).payload == b"x"
    down = channel.unary_stream(
        name + "EchoDown",
        request_serializer=facts[0],
        response_deserializer=facts[1],
        _registered_method=registered,
    )
    assert len(list(down(pb.EchoRequest(answers=2)))) == 2
    up = channel.stream_unary(name + "EchoUp", *facts, _registered_method=registered)
    assert up(requests(b"1", b"2")).payload == b"12"
    both = channel.stream_stream(name + "EchoBoth", *facts, _registered_method=registered)
    assert len(list(both(requests(b"1", b"2")))) == 2


def test_methods_without_serializers_carry_bytes(channel):
    raw = channel.unary_unary("/shoal.testing.v1.Echo/Echo")
    answer = raw(pb.EchoRequest(payload=b"x").SerializeToString())
    assert pb.EchoResponse.FromString(answer).payload == b"x"
    up = channel.stream_unary("/shoal.testing.v1.Echo/EchoUp")
    answer = up(iter([pb.EchoRequest(payload=b"x").SerializeToString()]))
    assert pb.EchoResponse.FromString(answer).payload == b"x"


def test_a_message_that_cannot_be_serialized(stub):
    with pytest.raises((TypeError, grpc.RpcError, AttributeError)):
        stub.EchoOnce("not a message", timeout=DEADLINE)
    assert stub.EchoOnce(pb.EchoRequest(payload=b"x"), timeout=DEADLINE).payload == b"x"


def test_a_request_iterator_that_raises(stub):
    def sent():
        yield pb.EchoRequest(payload=b"1")
        raise LookupError("the caller's own")

    with pytest.raises(grpc.RpcError):
        stub.EchoUp(sent(), timeout=DEADLINE)
    assert stub.EchoUp(requests(b"1"), timeout=DEADLINE).payload == b"1"


class Recorder(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds metadata to every call and remembers what it saw."""

    def __init__(self):
        self.calls = []

    def intercept(self, continuation, details, sent):
        self.calls.append(details.method.rpartition("/")[2])
        changed = _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), ("intercepted", "yes")],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return continuation(changed, sent)

    intercept_unary_unary = intercept
    intercept_unary_stream = intercept
    intercept_stream_unary = intercept
    intercept_stream_stream = intercept


class _Details(grpc.ClientCallDetails):
    def __init__(self, method, timeout, metadata, credentials, wait_for_ready, compression):
        self.method = method
        self.timeout = timeout
        self.metadata = metadata
        self.credentials = credentials
        self.wait_for_ready = wait_for_ready
        self.compression = compression


@pytest.mark.parametrize("kind", CALLS)
def test_interceptors(channel, server, kind):
    recorder = Recorder()
    stub = echo_pb2_grpc.EchoStub(grpc.intercept_channel(channel, recorder, recorder))
    answer = CALLS[kind](stub, timeout=DEADLINE, metadata=(("mine", "1"),), wait_for_ready=True)
    assert answer.payload == b"x"
    assert len(recorder.calls) == 2
    ((_, seen),) = server.seen
    assert (seen["intercepted"], seen["mine"]) == ("yes", "1")


@pytest.mark.parametrize("kind", FAILURES)
def test_errors_through_interceptors(channel, kind):
    stub = echo_pb2_grpc.EchoStub(grpc.intercept_channel(channel, Recorder()))
    with pytest.raises(grpc.RpcError) as caught:
        FAILURES[kind](stub, 5, timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "a was told to fail"


def test_a_closed_channel(channel, stub):
    stub.Echo(pb.EchoRequest())
    channel.close()
    channel.close()
    with pytest.raises(ValueError, match="closed"):
        stub.Echo(pb.EchoRequest())
    with pytest.raises(ValueError, match="closed"):
        stub.EchoDown(pb.EchoRequest())


def test_close_ends_what_runs(channel, stub, server):
    go = threading.Event()
    server.servicer.script = lambda _: go.wait(DEADLINE)
    future = stub.EchoOnce.future(pb.EchoRequest(), timeout=DEADLINE)
    call = stub.EchoDown(pb.EchoRequest(), timeout=DEADLINE)
    eventually(lambda: len(server.seen) == 2)
    channel.close()
    assert future.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    go.set()


def test_connectivity(channel):
    seen = []
    channel.subscribe(seen.append, try_to_connect=True)
    eventually(lambda: grpc.ChannelConnectivity.READY in seen)
    channel.unsubscribe(seen.append)


def test_ready_future(channel):
    grpc.channel_ready_future(channel).result(DEADLINE)
