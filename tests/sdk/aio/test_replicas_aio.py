"""Which replicas an asyncio channel has, and what it does while there are none."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import grpc
import grpc.aio
import pytest

import shoal.aio
from shoal.channel import replica_of, where
from shoal.retry import Retry
from shoal.testing import FixedDirectory
from shoal_balancer import Replica, RoundRobin
from shoal_protos.testing.v1 import echo_pb2 as pb
from tests.sdk.aio.stubs import DEADLINE, SAFE, awaited, first, one, stub_on
from tests.sdk.aio.support import eventually, on_loop
from tests.support.echo import EchoServer
from tests.support.failing import UNAVAILABLE, Failing, quick


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
            awaited(SAFE[kind](stub, timeout=DEADLINE, wait_for_ready=True))
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
        task = asyncio.ensure_future(awaited(call) if kind == "EchoUp" else call.read())
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
