"""Slow calls that are sent a second time: the first answer wins and the loser is cancelled."""

import threading

import grpc
import pytest

import shoal
from shoal.channel import Channel, replica_of
from shoal.hedging import Hedge
from shoal.retry import Retry
from shoal_balancer import Outcome, RoundRobin
from shoal_balancer.load import PendingCount
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.waiting import eventually

REQUEST = echo_pb2.EchoRequest(payload=b"x")
EAGER = Hedge(quantile=0.5, extra=1.0, shortest=0.05, volume=10)


class Prefers:
    """One replica while it may be picked."""

    def __init__(self, target):
        self.target = target

    def load(self):
        return PendingCount()

    def choose(self, nodes, now, rng):
        return next((node for node in nodes if node.replica.target == self.target), nodes[0])


class Copies(shoal.Hooks):
    def __init__(self):
        self.hedges = []
        self.ends = []

    def hedged(self, method, replica):
        self.hedges.append((method, replica.target))

    def ended(self, replica, latency, outcome):
        self.ends.append((replica.target, outcome))


class Stall:
    """Holds calls to the first server until the caller gives up, and says that it did."""

    def __init__(self, server):
        self.cancelled = threading.Event()
        self.release = threading.Event()
        server.servicer.script = self._script

    def _script(self, context):
        context.add_callback(self.cancelled.set)
        self.release.wait(20.0)


@pytest.fixture
def warm(directory):
    """A stub whose method has been measured."""
    made = []

    def make(hedge=EAGER, **options):
        options.setdefault("policy", RoundRobin())
        channel = Channel(directory, "echo", hedge=hedge, hooks=Copies(), **options)
        made.append(channel)
        stub = echo_pb2_grpc.EchoStub(channel)
        for _ in range(12):
            stub.Echo(REQUEST)
        channel.hooks.hedges.clear()
        channel.hooks.ends.clear()
        return stub, channel

    yield make
    for channel in made:
        channel.close()


def test_a_stalled_call_is_answered_by_another_replica_and_the_loser_is_cancelled(warm, servers):
    stub, channel = warm(policy=Prefers(servers[0].target))
    stall = Stall(servers[0])
    response, call = stub.Echo.with_call(REQUEST, timeout=20.0)
    assert response.payload == b"x"
    ((method, second),) = channel.hooks.hedges
    assert method == "/shoal.testing.v1.Echo/Echo"
    assert replica_of(call).target == second != servers[0].target
    assert stall.cancelled.wait(20.0)
    assert (servers[0].target, Outcome.OUTRUN) in channel.hooks.ends
    nodes = channel.pool.balancer.snapshot.nodes
    assert [node.in_flight for node in nodes] == [0, 0, 0]
    stall.release.set()


def test_a_loser_is_remembered_as_slow(warm, servers):
    class Measured(Prefers):
        def load(self):
            return shoal.PeakEwma().load()

    stub, channel = warm(policy=Measured(servers[0].target))
    stall = Stall(servers[0])
    stub.Echo(REQUEST, timeout=20.0)
    view = channel.snapshot()
    slow = next(each for each in view.replicas if each.replica.target == servers[0].target)
    # At least as long as it was waited for, though nobody knows how long it would have taken.
    assert slow.ewma >= EAGER.shortest
    stall.release.set()


def test_nothing_is_sent_twice_before_enough_is_known(directory, servers):
    hooks = Copies()
    hedge = Hedge(quantile=0.5, extra=1.0, shortest=0.0, volume=100)
    with Channel(directory, "echo", hedge=hedge, hooks=hooks) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        for _ in range(50):
            stub.Echo(REQUEST)
    assert hooks.hedges == []


def test_a_method_that_is_not_safe_is_never_sent_twice(directory, servers):
    hooks = Copies()
    hedge = Hedge(quantile=0.01, extra=1.0, shortest=0.0, volume=1)
    with Channel(directory, "echo", hedge=hedge, hooks=hooks) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        for _ in range(50):
            stub.EchoOnce(echo_pb2.EchoRequest(work=0.001))
    assert hooks.hedges == []
    assert sum(len(server.seen) for server in servers) == 50


def test_copies_have_a_budget_of_their_own(directory, servers):
    hooks = Copies()
    hedge = Hedge(quantile=0.001, extra=0.1, shortest=0.0, volume=1)
    with Channel(directory, "echo", hedge=hedge, hooks=hooks) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        stub.Echo(REQUEST)
        for _ in range(100):
            stub.Echo(echo_pb2.EchoRequest(work=0.02))
    # Each was slower than the first; copies are a tenth of the calls, and one in ten seconds.
    assert 8 <= len(hooks.hedges) <= 12


def test_a_first_copy_that_fails_late_does_not_fail_the_call(warm, servers):
    stub, channel = warm(policy=Prefers(servers[0].target), retry=None)
    second = threading.Event()

    def fail_late(context):
        second.wait(20.0)
        context.abort(grpc.StatusCode.UNAVAILABLE, "down")

    def answer_later(context):
        second.set()
        eventually(lambda: (servers[0].target, Outcome.FAILED) in channel.hooks.ends)

    servers[0].servicer.script = fail_late
    for server in servers[1:]:
        server.servicer.script = answer_later
    assert stub.Echo(REQUEST, timeout=20.0).payload == b"x"


def test_when_both_copies_fail_the_error_has_both(warm, servers):
    stub, _ = warm(retry=Retry(attempts=1))
    both = threading.Barrier(2)

    def fail_together(context):
        both.wait(20.0)
        context.abort(grpc.StatusCode.UNAVAILABLE, "down")

    for server in servers:
        server.servicer.script = fail_together
    with pytest.raises(shoal.CallError) as caught:
        stub.Echo(REQUEST, timeout=20.0)
    assert len(caught.value.attempts) == 2
    assert len({attempt.replica.target for attempt in caught.value.attempts}) == 2


def test_a_deadline_ends_both_copies(warm, servers):
    stub, channel = warm(retry=None)
    stalls = [Stall(server) for server in servers]
    with pytest.raises(shoal.CallError) as caught:
        stub.Echo(REQUEST, timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    nodes = channel.pool.balancer.snapshot.nodes
    assert [node.in_flight for node in nodes] == [0, 0, 0]
    for stall in stalls:
        stall.release.set()


@pytest.mark.parametrize(
    "facts",
    [{"quantile": 1.0}, {"quantile": 0.0}, {"extra": 0.0}, {"shortest": -1.0}, {"volume": 0}],
    ids=str,
)
def test_nonsense_is_refused(facts):
    with pytest.raises(ValueError, match="must"):
        Hedge(**facts)
