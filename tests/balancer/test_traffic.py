"""Where traffic goes when replicas hang, fail fast, recover: open-loop simulations, seeded."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter

import pytest

from shoal_balancer import Ejection, LeastLoaded, Outcome, PeakEwma
from tests.balancer.helpers import Hand, balancer, node_of, replica

OK, FAILED = Outcome.OK, Outcome.FAILED


class Traffic:
    """Calls at an even rate; ``serve(name, now)`` gives latency and outcome of each."""

    def __init__(self, names, serve, **options):
        self.clock = Hand(1000.0)
        self.made = balancer(names, clock=self.clock, **options)
        self.serve = serve
        self._ends = []
        self._order = itertools.count()

    def run(self, seconds, rate):
        """Calls for each replica within that time."""
        counts = Counter()
        for _ in range(int(seconds * rate)):
            self.clock.now += 1.0 / rate
            self._finish()
            node = self.made.pick(self.clock.now)
            node.begin()
            latency, outcome = self.serve(node.replica.id, self.clock.now)
            end = (self.clock.now + latency, next(self._order), node, latency, outcome)
            heapq.heappush(self._ends, end)
            counts[node.replica.id] += 1
        return counts

    def drain(self):
        self.clock.now = math.inf
        while self._ends:
            heapq.heappop(self._ends)[2].abandon()

    def _finish(self):
        while self._ends and self._ends[0][0] <= self.clock.now:
            at, _, node, latency, outcome = heapq.heappop(self._ends)
            node.end(latency, outcome, at)


def test_one_that_hangs_from_its_first_call_is_left_alone():
    traffic = Traffic("abc", lambda name, _: (math.inf if name == "a" else 0.01, OK))
    counts = traffic.run(30, rate=100)
    assert counts["a"] <= 2
    assert min(counts["b"], counts["c"]) > 1000


def test_a_newcomer_that_hangs_is_left_alone():
    traffic = Traffic("bc", lambda name, _: (math.inf if name == "a" else 0.01, OK))
    traffic.run(10, rate=100)
    traffic.made.update([replica(name) for name in "abc"])
    counts = traffic.run(10, rate=100)
    assert counts["a"] < 20


@pytest.mark.parametrize("usual", [0.005, 0.2, 2.0, 8.0])
@pytest.mark.parametrize("ejection", [None, Ejection()], ids=["spared", "ejected"])
def test_failing_fast_does_not_attract_however_long_calls_take(usual, ejection):
    def serve(name, _):
        return (0.0001, FAILED) if name == "a" else (usual, OK)

    counts = Traffic("abcd", serve, ejection=ejection).run(60, rate=20)
    assert counts["a"] < counts.total() / 4 / 2


def test_failing_fast_does_not_attract_least_loaded_calls_once_ejected():
    def serve(name, _):
        return (0.0001, FAILED) if name == "a" else (0.2, OK)

    counts = Traffic("abcd", serve, policy=LeastLoaded()).run(60, rate=50)
    assert counts["a"] < 20


def test_one_that_recovers_gets_its_share_again():
    """At once when its probe succeeds, not after its failures have faded from the average."""
    traffic = Traffic("abc", lambda *_: (0.02, OK), policy=PeakEwma())
    traffic.run(5, rate=100)
    node = node_of(traffic.made, "a")
    for _ in range(5):
        node.begin()
    for _ in range(5):
        node.end(0.0001, FAILED, traffic.clock.now)
    assert node.health.ejected
    during = traffic.run(3, rate=100)
    assert during["a"] == 0
    traffic.clock.now = traffic.made.snapshot.refresh_at
    after = traffic.run(10, rate=100)
    assert 0.25 < after["a"] / after.total() < 0.42


def test_when_all_fail_all_are_tried():
    traffic = Traffic("abcd", lambda *_: (0.001, FAILED))
    counts = traffic.run(60, rate=50)
    assert set(counts) == set("abcd")
    assert max(counts.values()) < 0.6 * counts.total()


def test_when_the_first_of_all_comes_back_it_does_not_get_everything():
    """Half stay in rotation however they fail, so the one that is well shares with those."""

    def serve(name, now):
        return (0.02, OK) if name == "a" and now > 1030.0 else (0.02, FAILED)

    traffic = Traffic("abcd", serve)
    traffic.run(30, rate=50)
    made = traffic.made
    assert len(made.snapshot.ready) == 2
    counts = traffic.run(30, rate=50)
    assert 0 < counts["a"] < counts.total()
    traffic.drain()
    assert all(node.in_flight == 0 for node in made.snapshot.nodes)
