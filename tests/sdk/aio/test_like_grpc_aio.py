"""What grpc.aio's own channel does, ours does: every test runs on both.

One list of behaviours in one file, so that what is missing in it can be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

import grpc
import grpc.aio
import pytest

import shoal.aio
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.sdk.aio.support import eventually, on_loop

DEADLINE = 30.0


@pytest.fixture
def server(servers):
    return servers[0]


@pytest.fixture(params=["grpc", "shoal"])
def connect(request, server):
    """Makes a channel of either kind to one server."""

    def make(**options):
        if request.param == "grpc":
            return grpc.aio.insecure_channel(server.target, **options)
        return shoal.aio.Channel(FixedDirectory({"echo": [server.target]}), "echo", **options)

    return make


@contextlib.asynccontextmanager
async def stub_on(connect, **options):
    async with connect(**options) as channel:
        yield echo_pb2_grpc.EchoStub(channel)


def one(payload=b"x", **facts):
    return pb.EchoRequest(payload=payload, **facts)


async def first(call):
    async for message in call:
        return message
    raise AssertionError("no message")


async def several(*payloads, **facts):
    for payload in payloads:
        yield one(payload, **facts)


CALLS = {
    "unary": lambda stub, **o: stub.Echo(one(), **o),
    "up": lambda stub, **o: stub.EchoUp(several(b"x"), **o),
    "up_iterable": lambda stub, **o: stub.EchoUp([one()], **o),
    "down": lambda stub, **o: first(stub.EchoDown(one(), **o)),
    "down_read": lambda stub, **o: stub.EchoDown(one(), **o).read(),
    "both": lambda stub, **o: first(stub.EchoBoth(several(b"x"), **o)),
}
FAILURES = {
    "unary": lambda stub, code, **o: stub.EchoOnce(one(code=code), **o),
    "up": lambda stub, code, **o: stub.EchoUp(several(b"x", code=code), **o),
    "down": lambda stub, code, **o: stub.EchoDown(one(code=code), **o),
    "both": lambda stub, code, **o: stub.EchoBoth(several(b"x", code=code), **o),
}


async def outcome(call):
    """Awaits or reads a call."""
    return await call if hasattr(call, "__await__") else await call.read()


@pytest.mark.parametrize("kind", CALLS)
@on_loop
async def test_responses(connect, kind):
    async with stub_on(connect) as stub:
        assert (await CALLS[kind](stub, timeout=DEADLINE)).payload == b"x"
        assert (await CALLS[kind](stub)).payload == b"x"


@pytest.mark.parametrize("kind", CALLS)
@on_loop
async def test_the_callers_metadata_arrives(connect, server, kind):
    async with stub_on(connect) as stub:
        given = (("mine", "yes"), ("mine-bin", b"\xff"))
        await CALLS[kind](stub, timeout=DEADLINE, metadata=given)
        await CALLS[kind](stub, timeout=DEADLINE, metadata=grpc.aio.Metadata(*given))
    for _, seen in server.seen:
        assert seen["mine"] == "yes"
        assert seen["mine-bin"] == b"\xff"
        assert "shoal-attempt" not in seen


@pytest.mark.parametrize("kind", FAILURES)
@on_loop
async def test_errors(connect, server, kind):
    server.servicer.script = lambda context: context.set_trailing_metadata((("why", "so"),))
    async with stub_on(connect) as stub:
        call = FAILURES[kind](stub, 5, timeout=DEADLINE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await outcome(call)
        error = caught.value
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert error.details() == "a was told to fail"
        assert dict(error.trailing_metadata()) == {"why": "so"}
        assert error.debug_error_string()
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        assert await call.details() == "a was told to fail"
        assert dict(await call.trailing_metadata()) == {"why": "so"}
        assert call.done()
        assert not call.cancelled()
        assert not call.cancel()
        # As often as one asks.
        with pytest.raises(grpc.aio.AioRpcError):
            await outcome(call)


@pytest.mark.parametrize("kind", ["unary", "down", "up", "both"])
@on_loop
async def test_the_code_before_the_response(connect, kind):
    async with stub_on(connect) as stub:
        call = FAILURES[kind](stub, 5, timeout=DEADLINE)
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        assert await call.details() == "a was told to fail"
        call = FAILURES[kind](stub, 0, timeout=DEADLINE)
        if kind in ("unary", "up"):
            assert await call.code() is grpc.StatusCode.OK
            assert (await call).payload == b"x"


@pytest.mark.parametrize("method", ["Echo", "EchoUp"])
@on_loop
async def test_awaited_twice(connect, method):
    async with stub_on(connect) as stub:
        call = getattr(stub, method)(one() if method == "Echo" else [one()], timeout=DEADLINE)
        assert (await call).payload == b"x"
        assert (await call).payload == b"x"
        again = asyncio.gather(asyncio.ensure_future(_await(call)), _await(call))
        assert [answer.payload for answer in await again] == [b"x", b"x"]


async def _await(call):
    return await call


@on_loop
async def test_awaited_by_two_at_once(connect, server):
    async with stub_on(connect) as stub:
        call = stub.Echo(one(work=0.1), timeout=DEADLINE)
        answers = await asyncio.gather(_await(call), _await(call), call.code())
        assert [answers[0].payload, answers[1].payload] == [b"x", b"x"]
        assert answers[2] is grpc.StatusCode.OK
    assert len(server.seen) == 1


@pytest.mark.parametrize("method", ["Echo", "EchoUp", "EchoDown", "EchoBoth"])
@on_loop
async def test_metadata_of_a_call(connect, server, method):
    def script(context):
        context.send_initial_metadata((("first", "1"), ("first-bin", b"\x01")))
        context.set_trailing_metadata((("last", "2"),))

    server.servicer.script = script
    async with stub_on(connect) as stub:
        given = one() if method in ("Echo", "EchoDown") else several(b"x")
        call = getattr(stub, method)(given, timeout=DEADLINE)
        assert dict(await call.initial_metadata()) == {"first": "1", "first-bin": b"\x01"}
        if method in ("Echo", "EchoUp"):
            await call
        else:
            assert len([message async for message in call]) == 1
        assert dict(await call.trailing_metadata()) == {"last": "2"}
        assert await call.code() is grpc.StatusCode.OK
        assert not await call.details()


@pytest.mark.parametrize("method", ["Echo", "EchoUp", "EchoDown", "EchoBoth"])
@on_loop
async def test_done_callbacks(connect, method):
    async with stub_on(connect) as stub:
        given = one() if method in ("Echo", "EchoDown") else several(b"x")
        call = getattr(stub, method)(given, timeout=DEADLINE)
        heard = []
        call.add_done_callback(heard.append)
        assert heard == []
        assert not call.done()
        if method in ("Echo", "EchoUp"):
            await call
        else:
            assert len([message async for message in call]) == 1
        await eventually(lambda: heard == [call])
        assert call.done()
        call.add_done_callback(heard.append)
        await eventually(lambda: heard == [call, call])


@on_loop
async def test_a_done_callback_without_awaiting(connect):
    async with stub_on(connect) as stub:
        call = stub.Echo(one(), timeout=DEADLINE)
        heard = asyncio.Event()
        call.add_done_callback(lambda _: heard.set())
        await asyncio.wait_for(heard.wait(), DEADLINE)
        assert call.done()
        assert (await call).payload == b"x"


@on_loop
async def test_time_remaining(connect):
    async with stub_on(connect) as stub:
        call = stub.Echo(one(), timeout=DEADLINE)
        assert 0.0 < call.time_remaining() <= DEADLINE
        await call
        stream = stub.EchoDown(one(), timeout=DEADLINE)
        assert 0.0 < stream.time_remaining() <= DEADLINE
        await first(stream)
        assert stub.EchoDown(one()).time_remaining() is None


@pytest.mark.parametrize("kind", FAILURES)
@on_loop
async def test_a_deadline_that_passes(connect, server, kind):
    go = threading.Event()
    server.servicer.script = lambda _: go.wait(DEADLINE)
    async with stub_on(connect) as stub:
        call = FAILURES[kind](stub, 0, timeout=0.2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await outcome(call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    go.set()


@pytest.mark.parametrize("kind", FAILURES)
@on_loop
async def test_cancel(connect, server, kind):
    inside, go, ended = threading.Event(), threading.Event(), threading.Event()

    def script(context):
        context.add_callback(ended.set)
        inside.set()
        go.wait(DEADLINE)

    server.servicer.script = script
    async with stub_on(connect) as stub:
        call = FAILURES[kind](stub, 0, timeout=DEADLINE)
        reading = asyncio.ensure_future(outcome(call))
        await eventually(inside.is_set)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert call.cancelled()
        assert call.done()
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert not call.cancel()
        await eventually(ended.is_set)
    go.set()


@pytest.mark.parametrize("kind", FAILURES)
@on_loop
async def test_cancelling_who_awaits_cancels_the_call(connect, server, kind):
    inside, go, ended = threading.Event(), threading.Event(), threading.Event()

    def script(context):
        context.add_callback(ended.set)
        inside.set()
        go.wait(DEADLINE)

    server.servicer.script = script
    async with stub_on(connect) as stub:
        call = FAILURES[kind](stub, 0, timeout=DEADLINE)
        task = asyncio.ensure_future(outcome(call))
        await eventually(inside.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(ended.is_set)
        assert call.cancelled()
    go.set()


@on_loop
async def test_cancelling_who_waits_for_the_code_leaves_the_call(connect):
    async with stub_on(connect) as stub:
        call = stub.Echo(one(work=0.2), timeout=DEADLINE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.code(), 0.05)
        assert (await call).payload == b"x"


@on_loop
async def test_a_stream_is_read_to_its_end(connect):
    async with stub_on(connect) as stub:
        call = stub.EchoDown(one(answers=2), timeout=DEADLINE)
        assert (await call.read()).payload == b"x"
        assert (await call.read()).payload == b"x"
        assert await call.read() is grpc.aio.EOF
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@on_loop
async def test_writing_a_request_stream(connect):
    async with stub_on(connect) as stub:
        call = stub.EchoUp(timeout=DEADLINE)
        await call.write(one(b"1"))
        await call.write(one(b"2"))
        await call.done_writing()
        await call.done_writing()
        assert (await call).payload == b"12"
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(one(b"3"))


@on_loop
async def test_reading_and_writing_in_turn(connect):
    async with stub_on(connect) as stub:
        call = stub.EchoBoth(timeout=DEADLINE)
        for payload in (b"1", b"2", b"3"):
            await call.write(one(payload))
            assert (await call.read()).payload == payload
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(one(b"4"))


@pytest.mark.parametrize("method", ["EchoUp", "EchoBoth"])
@on_loop
async def test_writing_after_done_writing(connect, method):
    async with stub_on(connect) as stub:
        call = getattr(stub, method)(timeout=DEADLINE)
        await call.write(one(work=0.3))
        await call.done_writing()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(one())
        call.cancel()


@pytest.mark.parametrize("method", ["EchoUp", "EchoBoth"])
@on_loop
async def test_styles_do_not_mix(connect, method):
    async with stub_on(connect) as stub:
        call = getattr(stub, method)(several(b"x"), timeout=DEADLINE)
        with pytest.raises((grpc.aio.UsageError, asyncio.InvalidStateError)):
            await call.write(one())


@on_loop
async def test_writing_to_a_call_that_failed(connect):
    async with stub_on(connect) as stub:
        call = stub.EchoBoth(timeout=DEADLINE)
        await call.write(one(code=5))
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises((asyncio.InvalidStateError, grpc.aio.AioRpcError)):
            await call.write(one())


@on_loop
async def test_a_stream_that_fails_after_messages(connect):
    async with stub_on(connect) as stub:
        call = stub.EchoDown(one(answers=5, code=14, fail_after=2), timeout=DEADLINE)
        found = []

        async def read():
            async for message in call:
                found.append(message)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
        assert len(found) == 2
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("where", ["channel", "call"])
@on_loop
async def test_compression(connect, where):
    options = {"compression": grpc.Compression.Gzip}
    async with stub_on(connect, **(options if where == "channel" else {})) as stub:
        for call in CALLS.values():
            sent = options if where == "call" else {}
            assert (await call(stub, timeout=DEADLINE, **sent)).payload == b"x"


class Marks(
    grpc.aio.UnaryUnaryClientInterceptor,
    grpc.aio.UnaryStreamClientInterceptor,
    grpc.aio.StreamUnaryClientInterceptor,
    grpc.aio.StreamStreamClientInterceptor,
):
    """Adds metadata to every call."""

    async def _mark(self, continuation, details, request):
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("intercepted", "yes"))
        changed = grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        return await continuation(changed, request)

    intercept_unary_unary = _mark
    intercept_unary_stream = _mark
    intercept_stream_unary = _mark
    intercept_stream_stream = _mark


@pytest.mark.parametrize("kind", ["unary", "up", "down", "both"])
@on_loop
async def test_interceptors(connect, server, kind):
    # grpc.aio takes one kind of each; ours hands them to it.
    async with stub_on(connect, interceptors=[_only(kind)]) as stub:
        answer = await CALLS[kind](stub, timeout=DEADLINE, metadata=(("mine", "1"),))
        assert answer.payload == b"x"
    ((_, seen),) = server.seen
    assert (seen["intercepted"], seen["mine"]) == ("yes", "1")


def _only(kind):
    bases = {
        "unary": grpc.aio.UnaryUnaryClientInterceptor,
        "up": grpc.aio.StreamUnaryClientInterceptor,
        "down": grpc.aio.UnaryStreamClientInterceptor,
        "both": grpc.aio.StreamStreamClientInterceptor,
    }
    names = {
        "unary": "intercept_unary_unary",
        "up": "intercept_stream_unary",
        "down": "intercept_unary_stream",
        "both": "intercept_stream_stream",
    }
    return type("Only", (bases[kind],), {names[kind]: Marks._mark})()


@on_loop
async def test_a_message_that_cannot_be_serialized(connect):
    async with stub_on(connect) as stub:
        # grpc.aio logs it and sends an empty message.
        assert (await stub.EchoOnce("not a message", timeout=DEADLINE)).payload == b""
        assert (await stub.EchoOnce(one(), timeout=DEADLINE)).payload == b"x"


@on_loop
async def test_a_request_iterator_that_raises(connect):
    async def sent():
        yield one()
        raise LookupError("the caller's own")

    async with stub_on(connect) as stub:
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError, LookupError)):
            await stub.EchoUp(sent(), timeout=DEADLINE)
        assert (await stub.EchoUp([one()], timeout=DEADLINE)).payload == b"x"


@on_loop
async def test_a_closed_channel(connect):
    channel = connect()
    stub = echo_pb2_grpc.EchoStub(channel)
    await stub.Echo(one())
    await channel.close()
    await channel.close()
    with pytest.raises((grpc.aio.UsageError, asyncio.InvalidStateError, ValueError)):
        await stub.Echo(one())
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


@pytest.mark.parametrize("grace", [None, 0.05])
@on_loop
async def test_close_ends_what_runs(connect, server, grace):
    go = threading.Event()
    server.servicer.script = lambda _: go.wait(DEADLINE)
    channel = connect()
    stub = echo_pb2_grpc.EchoStub(channel)
    unary = stub.EchoOnce(one(), timeout=DEADLINE)
    stream = stub.EchoDown(one(), timeout=DEADLINE)
    await eventually(lambda: len(server.seen) == 2)
    await channel.close(grace)
    for call in (unary, stream):
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            await outcome(call)
        assert await call.code() is grpc.StatusCode.CANCELLED
    go.set()


@on_loop
async def test_close_with_grace_lets_what_runs_end(connect):
    channel = connect()
    stub = echo_pb2_grpc.EchoStub(channel)
    call = asyncio.ensure_future(outcome(stub.EchoOnce(one(work=0.2), timeout=DEADLINE)))
    await asyncio.sleep(0.05)
    await channel.close(DEADLINE)
    assert (await call).payload == b"x"


@on_loop
async def test_connectivity(connect):
    async with connect() as channel:
        await asyncio.wait_for(channel.channel_ready(), DEADLINE)
        assert channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY


@on_loop
async def test_wait_for_connection(connect):
    async with stub_on(connect) as stub:
        call = stub.Echo(one(work=0.05), timeout=DEADLINE)
        await call.wait_for_connection()
        assert (await call).payload == b"x"
