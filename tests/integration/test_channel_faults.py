"""Replicas that die, hang and come back under calls: real processes, a real ZooKeeper."""

from __future__ import annotations

import asyncio
import threading

import grpc
import grpc.aio
import pytest

import shoal
import shoal.aio
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.echo import EchoProcess
from tests.support.replica import SERVICE, ReplicaProcess
from tests.support.waiting import eventually

DEADLINE = 60.0
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class InOrder:
    """A policy that takes the first of the targets that may be called."""

    def __init__(self, *targets):
        self._targets = targets

    def load(self):
        return shoal.LeastLoaded().load()

    def choose(self, nodes, now, rng):
        return min(nodes, key=lambda node: self._targets.index(node.replica.target))


class Pair:
    """A replica that is called first and holds its calls, and one that answers."""

    def __init__(self, first, second):
        self.first = first
        self.second = second
        targets = [first.target, second.target]
        self.directory = FixedDirectory({"echo": targets})
        self.options = {"policy": InOrder(*targets), "ejection": None}

    def channel(self, **options):
        return shoal.Channel(self.directory, "echo", **self.options, **options)

    def aio_channel(self, **options):
        return shoal.aio.Channel(self.directory, "echo", **self.options, **options)

    def calls_of_second(self):
        """Calls that the second has served, the question not counted."""
        with grpc.insecure_channel(self.second.target) as channel:
            answer = echo_pb2_grpc.EchoStub(channel).Echo(pb.EchoRequest(), timeout=DEADLINE)
        return answer.calls - 1


@pytest.fixture
def pair():
    with EchoProcess("first", hold=DEADLINE) as first, EchoProcess("second") as second:
        yield Pair(first, second)


def killed_meanwhile(pair, call):
    """Kills the first once the call has arrived there; what the call gave or raised."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except grpc.RpcError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    pair.first.arrived()
    pair.first.kill()
    thread.join(DEADLINE)
    assert outcome, "the call did not end"
    return outcome[0]


def known_dead(channel, target):
    """Whether the channel's state says that a replica is gone: a failed call may say so before."""
    states = {view.replica.target: view.state for view in channel.snapshot().replicas}
    return states[target] != "ready"


def sent():
    return iter([pb.EchoRequest()])


SAFE = {
    "unary": lambda stub: stub.Echo(pb.EchoRequest(), timeout=DEADLINE),
    "with_call": lambda stub: stub.Echo.with_call(pb.EchoRequest(), timeout=DEADLINE)[0],
    "future": lambda stub: stub.Echo.future(pb.EchoRequest(), timeout=DEADLINE).result(),
    "up": lambda stub: stub.EchoUp(sent(), timeout=DEADLINE),
    "down": lambda stub: next(stub.EchoDown(pb.EchoRequest(), timeout=DEADLINE)),
}
UNSAFE = {
    "unary": lambda stub: stub.EchoOnce(pb.EchoRequest(), timeout=DEADLINE),
    "future": lambda stub: stub.EchoOnce.future(pb.EchoRequest(), timeout=DEADLINE).result(),
}


@pytest.mark.parametrize("kind", SAFE)
def test_killed_in_mid_call_a_safe_call_succeeds_elsewhere(pair, kind):
    with pair.channel() as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        answer = killed_meanwhile(pair, lambda: SAFE[kind](stub))
    assert answer.server == "second"
    assert pair.calls_of_second() == 1


@pytest.mark.parametrize("kind", UNSAFE)
def test_killed_in_mid_call_an_unsafe_call_fails_once_and_is_sent_nowhere_else(pair, kind):
    with pair.channel() as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        error = killed_meanwhile(pair, lambda: UNSAFE[kind](stub))
        assert isinstance(error, shoal.CallError)
        assert error.code() is UNAVAILABLE
        assert [attempt.replica.target for attempt in error.attempts] == [pair.first.target]
        assert pair.calls_of_second() == 0
        # The next one goes elsewhere, for nothing was sent to the dead one.
        eventually(lambda: known_dead(channel, pair.first.target))
        assert UNSAFE[kind](stub).server == "second"


@pytest.mark.parametrize("method", ["Echo", "EchoOnce"])
def test_killed_in_mid_call_under_asyncio(pair, method):
    async def run():
        async with pair.aio_channel() as channel:
            stub = echo_pb2_grpc.EchoStub(channel)
            call = getattr(stub, method)(pb.EchoRequest(), timeout=DEADLINE)
            task = asyncio.ensure_future(_await(call))
            await asyncio.to_thread(pair.first.arrived)
            pair.first.kill()
            if method == "Echo":
                assert (await task).server == "second"
            else:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await task
                assert caught.value.code() is UNAVAILABLE
                assert len(caught.value.attempts) == 1
                await asyncio.to_thread(eventually, lambda: known_dead(channel, pair.first.target))
            assert (await stub.EchoOnce(pb.EchoRequest(), timeout=DEADLINE)).server == "second"

    asyncio.run(run())
    # The last call of the block, and the first where it may be repeated.
    assert pair.calls_of_second() == (2 if method == "Echo" else 1)


async def _await(call):
    return await call


def test_a_replica_that_hangs_is_left_after_the_attempts_own_time(pair):
    retry = shoal.Retry(attempt_timeout=1.0)
    with pair.channel(retry=retry) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        assert stub.Echo(pb.EchoRequest(), timeout=DEADLINE).server == "second"
        # Paused, it does not even answer pings.
        pair.first.pause()
        assert stub.Echo(pb.EchoRequest(), timeout=DEADLINE).server == "second"
        pair.first.resume()


class Callers:
    """Calls without a promise on several threads, and what failed."""

    def __init__(self, channel, threads=4):
        self.served = []
        self.failures = []
        self.threads = threads
        self._stop = threading.Event()
        stub = echo_pb2_grpc.EchoStub(channel)
        self._threads = [threading.Thread(target=self._run, args=(stub,)) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, stub):
        request = pb.EchoRequest(work=0.005)
        while not self._stop.is_set():
            try:
                self.served.append(stub.EchoOnce(request, timeout=DEADLINE).server)
            except grpc.RpcError as error:
                self.failures.append(error)

    def more(self, count=100):
        target = len(self.served) + count
        eventually(lambda: len(self.served) >= target, what="more calls")

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)


def test_a_killed_replica_costs_what_was_in_flight_and_nothing_more(chroot, directories):
    directory = directories()
    with (
        ReplicaProcess(chroot, "one") as one,
        ReplicaProcess(chroot, "two"),
        ReplicaProcess(chroot, "three", "aio"),
    ):
        directory.ready(SERVICE, DEADLINE, count=3)
        with directory.channel(SERVICE) as channel:
            callers = Callers(channel)
            try:
                eventually(lambda: set(callers.served) == {"one", "two", "three"})
                one.process.kill()
                one.process.wait(DEADLINE)
                # Its node lives on with its session; nobody is sent there in vain meanwhile.
                assert "one" in {replica.id for replica in directory.watch(SERVICE).replicas()}
                callers.more(300)
            finally:
                callers.stop()
            assert len(callers.failures) <= callers.threads
            for error in callers.failures:
                assert error.code() is UNAVAILABLE
                assert [attempt.replica.id for attempt in error.attempts] == ["one"]


def test_the_error_without_a_replica_names_the_path_and_zookeepers_state(chroot, directories):
    directory = directories()
    with directory.channel("nobody") as channel:
        with pytest.raises(shoal.CallError) as caught:
            echo_pb2_grpc.EchoStub(channel).Echo(pb.EchoRequest(), timeout=DEADLINE)
        details = caught.value.details()
        assert caught.value.code() is UNAVAILABLE
        assert "service 'nobody'" in details
        assert directory.watch("nobody").path in details
        assert "connected" in details


def test_waiting_for_a_replica_that_is_started_later(chroot, directories):
    directory = directories()
    with directory.channel(SERVICE) as channel:
        future = echo_pb2_grpc.EchoStub(channel).EchoOnce.future(
            pb.EchoRequest(), timeout=DEADLINE, wait_for_ready=True
        )
        with ReplicaProcess(chroot, "late"):
            assert future.result().server == "late"


def test_the_first_call_waits_for_the_first_answer_of_the_directory(chroot, directories):
    with ReplicaProcess(chroot, "there"):
        for _ in range(3):
            # Made and used at once, without waiting for anything.
            directory = directories(cache_dir=None)
            with directory.channel(SERVICE) as channel:
                answer = echo_pb2_grpc.EchoStub(channel).Echo(pb.EchoRequest(), timeout=DEADLINE)
                assert answer.server == "there"
