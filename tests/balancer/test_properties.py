"""What must hold whatever happens: sets change, calls end in any way, time passes."""

from __future__ import annotations

import random
import statistics
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shoal_balancer import (
    Ejection,
    LeastLoaded,
    Outcome,
    PeakEwma,
    Random,
    Replica,
    RoundRobin,
    Status,
    updated,
)
from shoal_balancer.choice import two_distinct
from tests.balancer.helpers import Hand, balancer, names, node_of, replica

NAMES = "abcdefgh"
POLICIES = [PeakEwma, LeastLoaded, RoundRobin, Random]
STATUSES = st.sampled_from([Status.UP, Status.UP, Status.UP, Status.BUSY, Status.DRAINING])
SETS = st.dictionaries(st.sampled_from(NAMES), STATUSES, max_size=len(NAMES))


class Life(RuleBasedStateMachine):
    """A balancer lives through any order of changes, calls, failures and waits."""

    @initialize(policy=st.sampled_from(POLICIES), seed=st.integers(0, 1000))
    def start(self, policy, seed):
        self.clock = Hand(0.0)
        self.rule = Ejection(failures=2)
        self.made = balancer(policy=policy(), clock=self.clock, ejection=self.rule, seed=seed)
        self.observed = {}
        self.calls = []

    @rule(found=SETS)
    def update(self, found):
        before = self.made.snapshot.everyone()
        histories = {key: (node.load, node.health, node.calls) for key, node in before.items()}
        self.observed = found
        left = self.made.update([replica(name, status=status) for name, status in found.items()])
        for node in self.made.snapshot.nodes:
            if node.replica.identity in histories:
                assert (node.load, node.health, node.calls) == histories[node.replica.identity]
        assert all(node.retired for node in left)

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds):
        self.clock.now += seconds
        for node in self.made.tick():
            assert node.retired

    @precondition(lambda self: self.made.snapshot.routable)
    @rule()
    def call(self):
        probing = {n: n.health.probing_until for n in self.made.snapshot.routable}
        out = set(self.made.snapshot.routable) - set(self.made.snapshot.ready)
        node = self.made.pick(self.clock.now)
        if node in out:
            # A probe: its time out is over, and there is no other that may still be on its way.
            assert node.health.until <= self.clock.now
            assert probing[node] is None or probing[node] <= self.clock.now
            assert node.health.probing_until > self.clock.now
        snapshot = self.made.snapshot
        members = {*snapshot.nodes, *(entry.node for entry in snapshot.reserve)}
        assert node in members
        assert node.replica.routable
        assert not node.retired
        node.begin()
        self.calls.append(node)

    @precondition(lambda self: not self.made.snapshot.routable)
    @rule()
    def call_nobody(self):
        assert self.made.pick(self.clock.now) is None

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 1000), outcome=st.sampled_from(Outcome), latency=st.floats(0.0, 5.0))
    def end(self, which, outcome, latency):
        node = self.calls.pop(which % len(self.calls))
        node.end(latency, outcome, self.clock.now)

    @precondition(lambda self: len(self.made.snapshot.routable) > 1)
    @rule()
    def call_another(self):
        snapshot = self.made.snapshot
        tried = snapshot.routable[0]
        node = self.made.pick(self.clock.now, [tried])
        assert node is not None
        assert node is not tried
        assert node in snapshot.ready or set(snapshot.ready) == {tried}
        assert self.made.snapshot is snapshot, "a retry moved something"

    @invariant()
    def in_flight_is_exact(self):
        counted = Counter(self.calls)
        for node in {*self.made.snapshot.everyone().values(), *self.calls}:
            assert node.in_flight == counted[node]

    @invariant()
    def nobody_is_chosen_from_outside(self):
        snapshot = self.made.snapshot
        assert set(snapshot.ready) <= set(snapshot.routable)
        assert bool(snapshot.ready) == bool(snapshot.routable)
        # However the set shrinks around its ejected members.
        members = len(snapshot.routable)
        assert members - len(snapshot.ready) <= self.rule.max_share * members
        assert names(snapshot.nodes) == sorted(self.observed)

    def teardown(self):
        for node in self.calls:
            node.end(0.1, Outcome.OK, self.clock.now)
        for node in self.calls:
            assert node.in_flight == 0


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


@settings(max_examples=100, deadline=None)
@given(
    members=st.integers(1, 8),
    share=st.floats(0.0, 1.0),
    failing=st.lists(st.integers(0, 7), max_size=60),
)
def test_the_cap_on_ejections_holds_and_the_last_is_never_ejected(members, share, failing):
    made = balancer(NAMES[:members], ejection=Ejection(failures=1, max_share=share))
    for index in failing:
        node = node_of(made, NAMES[index % members])
        node.begin()
        node.end(0.01, Outcome.FAILED, made.clock())
        ejected = sum(node.health.ejected for node in made.snapshot.nodes)
        assert ejected <= share * members
        assert ejected < members
        assert made.snapshot.ready


@settings(max_examples=100, deadline=None)
@given(old=SETS, new=SETS, now=st.floats(0.0, 100.0))
def test_updated_is_pure(old, new, now):
    made = balancer(clock=Hand(now))
    made.update([replica(name, status=status) for name, status in old.items()])
    before = made.snapshot
    members, reserve = before.nodes, before.reserve
    observed = [replica(name, status=status) for name, status in new.items()]
    facts = [(node.replica, node.retired) for node in members]
    first = updated(before, observed, now, make=made._make)
    assert (made.snapshot, before.nodes, before.reserve) == (before, members, reserve)
    assert [(node.replica, node.retired) for node in members] == facts
    assert names(first.nodes) == sorted(new)
    # Told the same again, in any order, nothing changes.
    assert updated(first, observed[::-1], now, make=pytest.fail) == first


@given(count=st.integers(2, 50), seed=st.integers())
def test_two_draws_are_distinct_and_within(count, seed):
    first, second = two_distinct(count, random.Random(seed))
    assert first != second
    assert 0 <= first < count
    assert 0 <= second < count


def test_pairs_are_uniform():
    rng = random.Random(7)
    pairs = Counter(two_distinct(4, rng) for _ in range(24_000))
    assert len(pairs) == 12
    assert min(pairs.values()) > 1800
    assert max(pairs.values()) < 2200


def run(made, clock, latencies, *, calls, rate, outcome=lambda name: Outcome.OK):
    """Calls at an even rate, each ending after its replica's latency; calls for each replica."""
    ends, counts = [], Counter()
    for _ in range(calls):
        clock.now += 1.0 / rate
        for at, node in sorted((e for e in ends if e[0] <= clock.now), key=lambda e: e[0]):
            node.end(latencies[node.replica.id], outcome(node.replica.id), at)
        ends = [e for e in ends if e[0] > clock.now]
        node = made.pick(clock.now)
        node.begin()
        counts[node.replica.id] += 1
        ends.append((clock.now + latencies[node.replica.id], node))
    for at, node in ends:
        node.end(latencies[node.replica.id], outcome(node.replica.id), at)
    assert all(node.in_flight == 0 for node in made.snapshot.nodes)
    return counts


def test_equal_replicas_get_equal_shares():
    clock = Hand()
    made = balancer(NAMES, clock=clock, seed=3)
    rng = random.Random(3)

    class Jittered(dict):
        def __getitem__(self, name):
            return 0.01 * (0.5 + rng.random())

    counts = run(made, clock, Jittered(), calls=8000, rate=200)
    assert min(counts.values()) > 600
    assert max(counts.values()) < 1500


def test_a_slow_replica_gets_less():
    clock = Hand()
    made = balancer("abcd", clock=clock, seed=4)
    counts = run(made, clock, {"a": 0.5, "b": 0.02, "c": 0.02, "d": 0.02}, calls=4000, rate=100)
    others = statistics.mean(counts[name] for name in "bcd")
    assert 0 < counts["a"] < others / 4


@pytest.mark.parametrize("ejection", [None, Ejection()])
@pytest.mark.parametrize("seed", range(5))
def test_a_fast_failing_replica_does_not_attract_traffic(seed, ejection):
    clock = Hand()
    made = balancer("abcd", clock=clock, seed=seed, ejection=ejection)
    counts = run(
        made,
        clock,
        {"a": 0.0005, "b": 0.05, "c": 0.05, "d": 0.05},
        calls=3000,
        rate=100,
        outcome=lambda name: Outcome.FAILED if name == "a" else Outcome.OK,
    )
    assert counts["a"] < 3000 / 4 / 2


def test_a_newcomer_neither_floods_nor_starves():
    clock = Hand()
    made = balancer("abc", clock=clock, seed=5)
    latencies = dict.fromkeys("abcd", 0.05)
    run(made, clock, latencies, calls=500, rate=50)
    made.update([replica(name) for name in "abcd"])
    counts = run(made, clock, latencies, calls=1000, rate=50)
    assert 100 < counts["d"] < 500


def test_in_flight_is_exact_under_threads():
    made = balancer("abc", policy=LeastLoaded(), clock=Hand())
    made._lock = threading.RLock()
    start = threading.Barrier(9)
    outcomes = [Outcome.OK, Outcome.FAILED, Outcome.NEUTRAL]
    problems = []

    def work(seed):
        rng = random.Random(seed)
        start.wait()
        for number in range(3000):
            node = made.pick(float(number))
            node.begin()
            if node.retired:
                node.abandon()
                continue
            if node.in_flight < 1:
                problems.append(node)
            node.end(0.001, rng.choice(outcomes), float(number))

    def change():
        start.wait()
        rng = random.Random(0)
        for _ in range(300):
            made.update([replica(name) for name in "abcd" if name == "a" or rng.random() < 0.7])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    threads.append(threading.Thread(target=change))
    every = set()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    every.update(made.snapshot.everyone().values())
    assert not problems
    assert all(node.in_flight == 0 for node in every)


def test_the_goodbye_comes_once_idle_and_after_the_last_call():
    made = balancer("ab")
    node = node_of(made, "a")
    heard = []
    node.begin()
    node.begin()
    node.when_idle(lambda: heard.append(node.in_flight))
    node.end(0.1, Outcome.OK, 1.0)
    assert heard == []
    node.abandon()
    assert heard == [0]


def test_the_goodbye_of_an_idle_node_comes_at_once():
    node = node_of(balancer("ab"), "a")
    heard = []
    node.when_idle(lambda: heard.append(node.in_flight))
    assert heard == [0]


@given(earlier=st.integers(0, 5000), seed=st.integers())
def test_an_ejection_is_jittered_by_a_fifth_and_capped(earlier, seed):
    span = min(5.0 * 2.0 ** min(earlier, 10), 60.0)
    assert 0.8 * span <= Ejection().duration(earlier, random.Random(seed)) <= 1.2 * span


def test_ejections_of_many_callers_do_not_end_in_step():
    assert len({Ejection().duration(0, random.Random(seed)) for seed in range(50)}) == 50


@pytest.mark.parametrize(
    "wrong",
    [{"failures": 0}, {"base": 0.0}, {"base": 9.0, "cap": 1.0}, {"max_share": 1.5}],
)
def test_an_ejection_rule_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Ejection(**wrong)


def test_a_decay_time_of_nothing_is_refused():
    with pytest.raises(ValueError, match="tau"):
        PeakEwma(tau=0.0)


def test_targets_of_both_families():
    assert replica("a").target == "127.0.0.1:1"
    assert Replica("a", "::1", 7).target == "[::1]:7"
    assert len({Replica("a", "::1", 7, metadata={"x": "y"}), Replica("a", "::1", 7)}) == 2
