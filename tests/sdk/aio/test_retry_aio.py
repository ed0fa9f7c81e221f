"""What is sent again, and which replicas an asyncio channel has; `tests/sdk/channel` says more.

One file, for all of it shares servers that fail as they are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import grpc.aio
import pytest

import shoal.aio
from shoal.channel import replica_of, where
from shoal.replay import LIMIT
from shoal.retry import Retry
from shoal.testing import FixedDirectory
from shoal_balancer import Replica, RetryBudget, RoundRobin, Status
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc
from tests.sdk.aio.support import eventually, on_loop
from tests.support.echo import Echo, EchoServer

DEADLINE = 30.0
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ONCE = "/shoal.testing.v1.Echo/EchoOnce"


def budget(count):
    """One with exactly that many retries."""
    return RetryBudget(
        ratio=0.0, per_second=count / 600, ttl=600, clock=time.monotonic, lock=threading.Lock()
    )


def quick(**facts):
    facts.setdefault("budget", budget(1000))
    facts.setdefault("backoff", 0.001)
    return Retry(**facts)


class Failing:
    """Fails the first calls, on whatever server, and remembers on which."""

    def __init__(self, servers, count, *, code=UNAVAILABLE, trailers=(), details="down"):
        self.left = count
        self.where = []
        self.numbers = []
        self._lock = threading.Lock()
        for server in servers:
            server.servicer.script = self._script(server, code, trailers, details)

    def _script(self, server, code, trailers, details):
        def script(context):
            with self._lock:
                self.where.append(server.servicer.name)
                self.numbers.append(dict(context.invocation_metadata()).get("shoal-attempt"))
                self.left -= 1
                failing = self.left >= 0
            if failing:
                context.set_trailing_metadata(trailers)
                context.abort(code, details)

        return script


@contextlib.asynccontextmanager
async def stub_on(directory, **options):
    async with shoal.aio.Channel(directory, "echo", **options) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        stub.channel = channel
        yield stub


def one(payload=b"x", **facts):
    return pb.EchoRequest(payload=payload, **facts)


async def first(call):
    async for message in call:
        return message
    raise AssertionError("no message")


async def written(call):
    await call.write(one())
    await call.done_writing()
    return await call


SAFE = {
    "unary": lambda stub, **o: stub.Echo(one(), **o),
    "up": lambda stub, **o: stub.EchoUp([one()], **o),
    "up_written": lambda stub, **o: written(stub.EchoUp(**o)),
    "down": lambda stub, **o: first(stub.EchoDown(one(), **o)),
    "down_read": lambda stub, **o: stub.EchoDown(one(), **o).read(),
    "both": lambda stub, **o: first(stub.EchoBoth([one()], **o)),
}


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
        task = asyncio.ensure_future(_await(call))
        await eventually(lambda: call._task is not None)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert call.cancelled()
    assert len(failing.where) == 1


async def _await(call):
    return await call


@pytest.mark.parametrize("kind", SAFE)
@on_loop
async def test_no_replica(kind):
    async with stub_on(FixedDirectory()) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await SAFE[kind](stub, timeout=DEADLINE)
        assert caught.value.code() is UNAVAILABLE
        assert "service 'echo'" in caught.value.details()
        assert "fixed:/services/echo lists 0" in caught.value.details()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await SAFE[kind](stub, timeout=0.3, wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("retry", [Retry(), None], ids=["retry", "no-retry"])
@pytest.mark.parametrize("kind", SAFE)
@on_loop
async def test_waiting_for_a_replica_that_appears(servers, kind, retry):
    directory = FixedDirectory()
    async with stub_on(directory, retry=retry) as stub:
        call = asyncio.ensure_future(
            _await(SAFE[kind](stub, timeout=DEADLINE, wait_for_ready=True))
        )
        await asyncio.sleep(0.1)
        assert not call.done()
        await asyncio.to_thread(directory.set, "echo", [servers[0].target])
        assert (await call).payload == b"x"


@pytest.mark.parametrize("retry", [Retry(), None], ids=["retry", "no-retry"])
@pytest.mark.parametrize("kind", SAFE)
@on_loop
async def test_waiting_with_one_dead_of_two(servers, kind, retry):
    gone = EchoServer("gone")
    gone.stop()
    directory = FixedDirectory({"echo": [gone.target, servers[0].target]})
    longest = 0.0
    async with stub_on(directory, policy=RoundRobin(), ejection=None, retry=retry) as stub:
        for _ in range(20):
            began = time.monotonic()
            await SAFE[kind](stub, timeout=DEADLINE, wait_for_ready=True)
            longest = max(longest, time.monotonic() - began)
    # 200 ms on a machine that has nothing else to do; this one may have.
    assert longest < 2.0


@on_loop
async def test_nothing_stays_in_flight(servers, directory):
    Failing(servers, 2)
    async with stub_on(directory, retry=quick()) as stub:
        for call in SAFE.values():
            await call(stub, timeout=DEADLINE)
        # Never awaited, never read, cancelled.
        stub.Echo(one(), timeout=DEADLINE)
        stub.EchoDown(one(answers=1000), timeout=DEADLINE)
        stub.EchoBoth(timeout=DEADLINE)
        stub.EchoUp([one()], timeout=DEADLINE).cancel()
        gc.collect()
        nodes = stub.channel.pool.balancer.snapshot.nodes
        await eventually(lambda: all(node.in_flight == 0 for node in nodes))


@on_loop
async def test_a_call_in_flight_survives_the_removal_of_its_replica(servers):
    every = [Replica(s.servicer.name, "127.0.0.1", s.port) for s in servers]
    directory = FixedDirectory({"echo": every})
    inside, go = threading.Event(), threading.Event()

    def script(_):
        inside.set()
        go.wait(DEADLINE)

    for server in servers:
        server.servicer.script = script
    async with stub_on(directory) as stub:
        pool = stub.channel.pool
        pool._reserve = pool.balancer._reserve = 0.2
        call = stub.EchoOnce(one(), timeout=DEADLINE)
        await eventually(inside.is_set)
        serving = replica_of(call)
        node = next(n for n in pool.balancer.snapshot.nodes if n.replica == serving)
        await asyncio.to_thread(directory.set, "echo", [each for each in every if each != serving])
        await eventually(lambda: not pool.balancer.snapshot.reserve)
        assert node.retired
        assert not node.endpoint.closed
        go.set()
        assert (await call).server == serving.id
        await eventually(lambda: node.endpoint.closed)


@on_loop
async def test_calls_survive_a_list_that_changes_all_the_time(servers):
    every = [Replica(s.servicer.name, "127.0.0.1", s.port) for s in servers]
    directory = FixedDirectory({"echo": every})
    stop = asyncio.Event()
    served = set()

    async with stub_on(directory, retry=None) as stub:
        pool = stub.channel.pool
        pool._reserve = pool.balancer._reserve = 0.02

        async def call():
            while not stop.is_set():
                served.add((await stub.EchoOnce(one(), timeout=DEADLINE)).server)

        def change():
            until = time.monotonic() + 1.5
            turn = 0
            while time.monotonic() < until:
                turn += 1
                directory.set("echo", [r for n, r in enumerate(every) if (turn + n) % 3])
                threading.Event().wait(0.01)

        calls = asyncio.gather(*[call() for _ in range(4)])
        await asyncio.to_thread(change)
        stop.set()
        await calls
        nodes = pool.balancer.snapshot.everyone().values()
        assert all(node.in_flight == 0 for node in nodes)
    assert served == {"a", "b", "c"}


class Listener(replica_pb2_grpc.ReplicaServicer):
    """Hears hello and released."""

    def __init__(self):
        self.words = []
        self.slow = 0.0

    def Hello(self, request, context):
        threading.Event().wait(self.slow)
        self.words.append("hello")
        return replica_pb2.HelloResponse()

    def Released(self, request, context):
        self.words.append("released")
        return replica_pb2.ReleasedResponse()


@pytest.fixture
def listener():
    """A server that hears who comes and goes."""
    found = Listener()
    server = grpc.server(ThreadPoolExecutor(8))
    echo_pb2_grpc.add_EchoServicer_to_server(Echo("listener"), server)
    replica_pb2_grpc.add_ReplicaServicer_to_server(found, server)
    found.replica = Replica("l", "127.0.0.1", server.add_insecure_port("127.0.0.1:0"))
    server.start()
    yield found
    server.stop(None).wait()


@pytest.mark.parametrize("slow", [0.0, 0.15])
@on_loop
async def test_a_channel_that_closes_says_goodbye(listener, slow):
    listener.slow = slow
    for _ in range(3):
        async with stub_on(FixedDirectory({"echo": [listener.replica]})) as stub:
            await stub.Echo(one())
    assert listener.words == ["hello", "released"] * 3


@on_loop
async def test_closing_does_not_wait_for_a_replica_that_hears_nothing(listener):
    listener.slow = DEADLINE / 10
    channel = shoal.aio.Channel(FixedDirectory({"echo": [listener.replica]}), "echo")
    await echo_pb2_grpc.EchoStub(channel).Echo(one())
    began = time.monotonic()
    await channel.close()
    assert time.monotonic() - began < 2.5


@on_loop
async def test_a_draining_replica_hears_goodbye_after_the_last_call(listener):
    directory = FixedDirectory({"echo": [listener.replica]})
    async with stub_on(directory) as stub:
        call = stub.EchoBoth(timeout=DEADLINE)
        await call.write(one())
        await call.read()
        # Said on its own, and perhaps heard a little later.
        await eventually(lambda: listener.words == ["hello"])
        leaving = replace(listener.replica, status=Status.DRAINING)
        await asyncio.to_thread(directory.set, "echo", [leaving])
        with pytest.raises(grpc.aio.AioRpcError, match="draining"):
            await stub.Echo(one())
        assert listener.words == ["hello"]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        await eventually(lambda: listener.words == ["hello", "released"])


@on_loop
async def test_replica_of_and_filters(servers):
    facts = ["1", "2", "2"]
    every = [
        Replica(s.servicer.name, "127.0.0.1", s.port, version=version)
        for s, version in zip(servers, facts, strict=True)
    ]
    directory = FixedDirectory({"echo": every})
    async with stub_on(directory, filter=where(version="2"), policy=RoundRobin()) as stub:
        served = set()
        for _ in range(4):
            call = stub.Echo(one(), timeout=DEADLINE)
            served.add((await call).server)
            assert replica_of(call).version == "2"
        assert served == {"b", "c"}
        stream = stub.EchoDown(one(), timeout=DEADLINE)
        assert (await first(stream)).server == replica_of(stream).id


def test_a_channel_needs_a_running_loop(directory):
    with pytest.raises(RuntimeError, match="loop"):
        shoal.aio.Channel(directory, "echo")


@on_loop
async def test_connectivity_follows_the_list(servers):
    directory = FixedDirectory()
    states = grpc.ChannelConnectivity
    async with shoal.aio.Channel(directory, "echo") as channel:
        assert channel.get_state() is states.IDLE
        change = asyncio.ensure_future(channel.wait_for_state_change(states.IDLE))
        await asyncio.to_thread(directory.set, "echo", [servers[0].target])
        await asyncio.wait_for(change, DEADLINE)
        await asyncio.wait_for(channel.channel_ready(), DEADLINE)
        assert channel.get_state() is states.READY
        assert "shoal.aio.Channel echo" in repr(channel)
    assert channel.get_state() is states.SHUTDOWN


@pytest.mark.parametrize("kind", ["EchoDown", "EchoBoth", "EchoUp"])
@on_loop
async def test_cancelling_while_waiting_for_a_replica(kind):
    async with stub_on(FixedDirectory()) as stub:
        given = [one()] if kind == "EchoDown" else []
        call = getattr(stub, kind)(*given, timeout=DEADLINE, wait_for_ready=True)
        task = asyncio.ensure_future(_await(call) if kind == "EchoUp" else call.read())
        heard = []
        call.add_done_callback(heard.append)
        await asyncio.sleep(0.05)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert call.cancelled()
        assert call.done()
        assert await call.code() is grpc.StatusCode.CANCELLED
        await eventually(lambda: heard == [call])


@on_loop
async def test_reading_and_writing_while_waiting_for_a_replica_sends_one_call(servers):
    directory = FixedDirectory()
    async with stub_on(directory) as stub:
        call = stub.EchoBoth(timeout=DEADLINE, wait_for_ready=True)

        async def write():
            for payload in (b"1", b"2", b"3"):
                await call.write(one(payload))
            await call.done_writing()

        async def read():
            return [message.payload async for message in call]

        both = asyncio.gather(read(), write(), call.initial_metadata())
        await asyncio.sleep(0.05)
        await asyncio.to_thread(directory.set, "echo", [servers[0].target])
        assert (await both)[0] == [b"1", b"2", b"3"]
        nodes = stub.channel.pool.balancer.snapshot.nodes
        await eventually(lambda: all(node.in_flight == 0 for node in nodes))
        assert sum(node.calls for node in nodes) == 1


@on_loop
async def test_a_call_that_nobody_awaits_goes_on_and_ends_for_the_balancer(directory, servers):
    failing = Failing(servers, 1)
    async with stub_on(directory, retry=quick()) as stub:
        call = stub.Echo(pb.EchoRequest(payload=b"x"))
        await eventually(call.done, what="the call's end")
        # Tried elsewhere meanwhile, and nobody is held to be busy with it.
        assert len(failing.where) == 2
        nodes = stub.channel.pool.balancer.snapshot.nodes
        assert [node.in_flight for node in nodes] == [0, 0, 0]
        assert (await call).payload == b"x"


@on_loop
async def test_latency_is_measured_to_the_answer_and_not_to_when_it_is_awaited(directory):
    async with stub_on(directory, retry=None) as stub:
        for _ in range(10):
            call = stub.Echo(pb.EchoRequest())
            await eventually(call.done, what="the call's end")
            await asyncio.sleep(0.5)
            await call
        pool = stub.channel.pool
        latencies = [node.load.estimate(pool.clock()) for node in pool.balancer.snapshot.nodes]
        # A busy machine may be slow once; half a second each time is what must not be.
        assert min(latency for latency in latencies if latency) < 0.4
