"""What is sent again, and which replicas an asyncio channel has; `tests/sdk/channel` says more."""

from __future__ import annotations

import asyncio
import threading
import time

import grpc
import grpc.aio
import pytest

from shoal.channel import replica_of
from shoal.replay import LIMIT
from shoal.testing import FixedDirectory
from shoal_balancer import RoundRobin
from tests.sdk.aio.stubs import DEADLINE, ONCE, SAFE, awaited, one, stub_on
from tests.sdk.aio.support import eventually, on_loop
from tests.support.echo import EchoServer
from tests.support.failing import UNAVAILABLE, Failing, budget, quick


@pytest.mark.parametrize("kind", SAFE)
@on_loop
async def test_a_safe_method_is_sent_to_another_replica_each_time(servers, directory, kind):
    failing = Failing(servers, 2)
    async with stub_on(directory, retry=quick()) as stub:
        assert (await SAFE[kind](stub, timeout=DEADLINE)).payload == b"x"
    assert sorted(failing.where) == ["a", "b", "c"]
    assert failing.numbers == [None, "2", "3"]


@on_loop
async def test_a_method_without_a_promise_is_never_sent_twice(servers, directory):
    failing = Failing(servers, 1)
    async with stub_on(directory, retry=quick()) as stub:
        call = stub.EchoOnce(one(), timeout=DEADLINE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.why == "the method is not declared idempotent"
        assert replica_of(caught.value) == replica_of(call)
    assert len(failing.where) == 1


@on_loop
async def test_the_caller_may_promise_it(servers, directory):
    failing = Failing(servers, 1)
    async with stub_on(directory, retry=quick(safe=(ONCE,))) as stub:
        assert await stub.EchoOnce(one(), timeout=DEADLINE)
    assert len(set(failing.where)) == 2


@on_loop
async def test_what_was_refused_goes_elsewhere_whatever_the_method(servers, directory):
    failing = Failing(servers, 2, trailers=(("shoal-refused", "full"),))
    async with stub_on(directory, retry=quick()) as stub:
        assert await stub.EchoOnce(one(), timeout=DEADLINE)
    assert sorted(failing.where) == ["a", "b", "c"]


@on_loop
async def test_what_was_never_sent_goes_elsewhere_whatever_the_method(servers):
    gone = EchoServer("gone")
    gone.stop()
    directory = FixedDirectory({"echo": [gone.target, servers[0].target]})
    for _ in range(6):
        async with stub_on(directory, policy=RoundRobin()) as stub:
            assert (await stub.EchoOnce(one(), timeout=DEADLINE)).server == "a"
    assert len(servers[0].seen) == 6


@pytest.mark.parametrize("kind", SAFE)
@on_loop
async def test_the_last_error_lists_every_attempt(servers, directory, kind):
    Failing(servers, 99)
    async with stub_on(directory, retry=quick()) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await SAFE[kind](stub, timeout=DEADLINE)
    error = caught.value
    assert error.why == "attempts are used up"
    assert len({attempt.replica.id for attempt in error.attempts}) == 3
    assert error.details().startswith("down (3 attempts, then attempts are used up: ")


@pytest.mark.parametrize("kind", SAFE)
@on_loop
async def test_retries_off(servers, directory, kind):
    failing = Failing(servers, 1)
    async with stub_on(directory, retry=None) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await SAFE[kind](stub, timeout=DEADLINE)
    assert caught.value.why == "retries are off"
    assert len(failing.where) == 1


@on_loop
async def test_the_budget_ends_retries(servers, directory):
    failing = Failing(servers, 99)
    async with stub_on(directory, retry=quick(attempts=5, budget=budget(3))) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Echo(one(), timeout=DEADLINE)
    assert caught.value.why == "the retry budget is empty"
    assert len(failing.where) == 4


@pytest.mark.parametrize("kind", ["unary", "up"])
@on_loop
async def test_an_attempts_own_timeout_leaves_time_for_another(servers, directory, kind):
    go = threading.Event()
    servers[0].servicer.script = servers[1].servicer.script = lambda _: go.wait(DEADLINE)
    async with stub_on(directory, retry=quick(attempt_timeout=0.25)) as stub:
        assert (await SAFE[kind](stub, timeout=DEADLINE)).payload == b"x"
    go.set()


@on_loop
async def test_a_servers_own_deadline_is_an_answer(servers, directory):
    failing = Failing(servers, 1, code=grpc.StatusCode.DEADLINE_EXCEEDED)
    async with stub_on(directory, retry=quick()) as stub:
        assert await stub.Echo(one(), timeout=DEADLINE).code() is failing_code()
    assert len(failing.where) == 1


def failing_code():
    return grpc.StatusCode.DEADLINE_EXCEEDED


@on_loop
async def test_pushback(servers, directory):
    Failing(servers, 1, trailers=(("grpc-retry-pushback-ms", "300"),))
    async with stub_on(directory, retry=quick()) as stub:
        began = time.monotonic()
        await stub.Echo(one(), timeout=DEADLINE)
        assert time.monotonic() - began >= 0.29
        failing = Failing(servers, 1, trailers=(("grpc-retry-pushback-ms", "-1"),))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Echo(one(), timeout=DEADLINE)
        assert len(failing.where) == 1


@on_loop
async def test_code_and_callbacks_are_those_of_the_attempt_that_counts(servers, directory):
    Failing(servers, 1)
    async with stub_on(directory, retry=quick()) as stub:
        call = stub.Echo(one(), timeout=DEADLINE)
        heard = []
        call.add_done_callback(heard.append)
        assert await call.code() is grpc.StatusCode.OK
        assert (await call).payload == b"x"
        assert (await call).payload == b"x"
        await eventually(lambda: heard == [call])
        assert call.done()


@on_loop
async def test_a_streams_callback_waits_for_the_attempt_that_counts(servers, directory):
    Failing(servers, 1)
    async with stub_on(directory, retry=quick()) as stub:
        call = stub.EchoDown(one(answers=2), timeout=DEADLINE)
        heard = []
        call.add_done_callback(heard.append)
        assert len([message async for message in call]) == 2
        await eventually(lambda: heard == [call])
        assert await call.code() is grpc.StatusCode.OK
        Failing(servers, 99)
        call = stub.EchoDown(one(), timeout=DEADLINE)
        heard.clear()
        call.add_done_callback(heard.append)
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        await eventually(lambda: heard == [call])
        assert await call.code() is UNAVAILABLE
        assert call.done()


@on_loop
async def test_a_stream_is_not_repeated_after_its_first_message(servers, directory):
    async with stub_on(directory, retry=quick()) as stub:
        call = stub.EchoDown(one(answers=3, code=14, fail_after=1), timeout=DEADLINE)
        await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.why == "messages were handed out already"
    assert sum(len(server.seen) for server in servers) == 1


@on_loop
async def test_a_request_stream_is_repeated_whole_or_not_at_all(servers, directory):
    piece = b"x" * (LIMIT // 4)
    async with stub_on(directory, retry=quick()) as stub:
        Failing(servers, 1)
        answer = await stub.EchoUp([one(b"1"), one(b"2")], timeout=DEADLINE)
        assert answer.payload == b"12"
        failing = Failing(servers, 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.EchoUp([one(piece)] * 6, timeout=DEADLINE)
        assert "256 KiB" in caught.value.why
        assert len(failing.where) == 1
        answer = await stub.EchoUp([one(piece)] * 6, timeout=DEADLINE)
        assert len(answer.payload) == 6 * len(piece)


@on_loop
async def test_cancelling_between_attempts(servers, directory):
    failing = Failing(servers, 99, trailers=(("grpc-retry-pushback-ms", "20000"),))
    async with stub_on(directory, retry=quick()) as stub:
        call = stub.Echo(one(), timeout=DEADLINE)
        task = asyncio.ensure_future(awaited(call))
        await eventually(lambda: call._task is not None)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert call.cancelled()
    assert len(failing.where) == 1
