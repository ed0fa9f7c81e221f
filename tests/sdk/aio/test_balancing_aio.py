"""Keys, connections, reports, hooks and hedging on asyncio; `tests/sdk/channel` says more."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import grpc
import pytest

import shoal.aio
from shoal import orca
from shoal.hedging import Hedge
from shoal.retry import Retry
from shoal.testing import FixedDirectory
from shoal_balancer import LoadReport, Outcome, Rendezvous, RoundRobin, WeightedRoundRobin
from shoal_balancer.load import PendingCount
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.sdk.aio.support import eventually, on_loop
from tests.support.echo import EchoProcess, EchoServer

REQUEST = pb.EchoRequest(payload=b"x")
EAGER = Hedge(quantile=0.5, extra=1.0, shortest=0.05, volume=10)


@contextlib.asynccontextmanager
async def stub_on(directory, **options):
    async with shoal.aio.Channel(directory, "echo", **options) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        stub.channel = channel
        yield stub


async def messages(call):
    return [message async for message in call]


@on_loop
async def test_calls_of_one_key_go_to_one_replica_whatever_their_kind(directory):
    async with stub_on(directory, policy=Rendezvous(), key="user") as stub:
        homes = set()
        for user in map(str, range(24)):
            metadata = (("user", user),)
            found = {
                (await stub.Echo(REQUEST, metadata=metadata)).server,
                (await messages(stub.EchoDown(REQUEST, metadata=metadata)))[0].server,
                (await stub.EchoUp(iter([REQUEST]), metadata=metadata)).server,
                (await messages(stub.EchoBoth(iter([REQUEST]), metadata=metadata)))[0].server,
            }
            assert len(found) == 1
            homes |= found
        assert len(homes) > 1


@on_loop
async def test_a_replica_that_lost_its_connection_is_passed_over_until_it_is_back():
    with EchoServer("a") as first, EchoProcess("b") as second:
        directory = FixedDirectory({"echo": [first.target, second.target]})
        async with stub_on(directory, policy=RoundRobin(), ejection=None) as stub:
            for _ in range(4):
                await stub.Echo(REQUEST)
            second.kill()
            for _ in range(20):
                assert (await stub.Echo(REQUEST)).server == "a"
            view = stub.channel.snapshot
            (lost,) = (each for each in view().replicas if not each.reachable)
            assert (lost.replica.target, lost.failures <= 2) == (second.target, True)
            with EchoServer("c", port=second.port):
                await eventually(lambda: all(each.reachable for each in view().replicas))
                assert {(await stub.Echo(REQUEST)).server for _ in range(4)} == {"a", "c"}


@on_loop
async def test_reports_reach_the_policy_from_every_kind_of_call(directory, servers):
    report = orca.encode(LoadReport(utilisation=0.5, qps=100.0))
    for server in servers:
        server.servicer.script = lambda context: context.set_trailing_metadata(
            ((orca.KEY, report),)
        )
    for options in ({}, {"retry": Retry(attempt_timeout=20.0)}, {"hedge": EAGER}):
        policy = WeightedRoundRobin(blackout=0.0)
        async with stub_on(directory, policy=policy, **options) as stub:

            async def up():
                await stub.EchoUp(iter([REQUEST]))

            async def one():
                await stub.Echo(REQUEST)

            async def down():
                await messages(stub.EchoDown(REQUEST))

            for send in (one, up, down):
                loads = [node.load for node in stub.channel.pool.balancer.snapshot.nodes]
                for load in loads:
                    load._since = None
                for _ in range(3):
                    await send()
                clock = stub.channel.pool.clock
                await eventually(
                    lambda loads=loads, clock=clock: (
                        [load.weight(clock()) for load in loads] == [200.0] * 3
                    ),
                    what="a report of each",
                )


class Prefers:
    """One replica while it may be picked."""

    def __init__(self, target):
        self.target = target

    def load(self):
        return PendingCount()

    def choose(self, nodes, now, rng):
        return next((node for node in nodes if node.replica.target == self.target), nodes[0])


class Heard(shoal.Hooks):
    def __init__(self):
        self.hedges = []
        self.ends = []

    def hedged(self, method, replica):
        self.hedges.append((method, replica.target))

    def ended(self, replica, latency, outcome):
        self.ends.append((replica.target, outcome))


@contextlib.asynccontextmanager
async def warm(directory, target, **options):
    heard = Heard()
    async with stub_on(
        directory, policy=Prefers(target), hedge=EAGER, hooks=heard, **options
    ) as stub:
        for _ in range(12):
            await stub.Echo(REQUEST)
        heard.hedges.clear()
        heard.ends.clear()
        stub.heard = heard
        yield stub


@on_loop
async def test_a_stalled_call_is_answered_by_another_replica_and_the_loser_is_cancelled(
    directory, servers
):
    cancelled, release = threading.Event(), threading.Event()

    def stall(context):
        context.add_callback(cancelled.set)
        release.wait(20.0)

    async with warm(directory, servers[0].target) as stub:
        servers[0].servicer.script = stall
        call = stub.Echo(REQUEST, timeout=20.0)
        assert (await call).payload == b"x"
        assert stub.heard.hedges == [("/shoal.testing.v1.Echo/Echo", call.replica.target)]
        assert call.replica.target != servers[0].target
        assert await call.code() is grpc.StatusCode.OK
        assert await asyncio.to_thread(cancelled.wait, 20.0)
        assert (servers[0].target, Outcome.OUTRUN) in stub.heard.ends
        nodes = stub.channel.pool.balancer.snapshot.nodes
        assert [node.in_flight for node in nodes] == [0, 0, 0]
        release.set()


@on_loop
async def test_when_both_copies_fail_the_error_has_both(directory, servers):
    both = threading.Barrier(2)

    def fail_together(context):
        both.wait(20.0)
        context.abort(grpc.StatusCode.UNAVAILABLE, "down")

    async with warm(directory, servers[0].target, retry=Retry(attempts=1)) as stub:
        for server in servers:
            server.servicer.script = fail_together
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Echo(REQUEST, timeout=20.0)
        assert len({attempt.replica.target for attempt in caught.value.attempts}) == 2


@on_loop
async def test_who_gives_up_ends_both_copies(directory, servers):
    release = threading.Event()
    async with warm(directory, servers[0].target) as stub:
        for server in servers:
            server.servicer.script = lambda context: release.wait(20.0)
        call = stub.Echo(REQUEST, timeout=20.0)
        await eventually(lambda: stub.heard.hedges, what="a second copy")
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        nodes = stub.channel.pool.balancer.snapshot.nodes
        assert [node.in_flight for node in nodes] == [0, 0, 0]
        release.set()
