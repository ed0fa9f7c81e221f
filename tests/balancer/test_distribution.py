"""What 100 000 seeded picks look like: not flaky, for the seed is fixed."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from shoal_balancer import LeastLoaded, Outcome, PeakEwma, Random, RoundRobin
from shoal_balancer.choice import two_distinct
from tests.balancer.helpers import Hand, balancer, replica

PICKS = 100_000
TEN = "abcdefghij"


def picked(made, count=PICKS):
    return Counter(made.pick(made.clock()).replica.id for _ in range(count))


def within(share, sigmas=5.0):
    """Bounds of a count of ``PICKS`` draws that each have this chance, five sigmas wide."""
    spread = sigmas * (PICKS * share * (1.0 - share)) ** 0.5
    return PICKS * share - spread, PICKS * share + spread


@pytest.mark.parametrize("policy", [PeakEwma(), LeastLoaded(), Random()], ids=repr)
def test_idle_equals_are_picked_equally(policy):
    counts = picked(balancer(TEN, policy=policy))
    least, most = within(0.1)
    assert len(counts) == 10
    assert least < min(counts.values())
    assert max(counts.values()) < most


@pytest.mark.parametrize("policy", [PeakEwma(), LeastLoaded()], ids=repr)
def test_two_choices_prefer_by_rank(policy):
    """With ten of different cost, the k-th cheapest wins against 9 - k of 45 pairs."""
    made = balancer(TEN, policy=policy)
    for rank, node in enumerate(made.snapshot.nodes):
        node.load.observe(0.1, made.clock())
        for _ in range(rank):
            node.begin()
    counts = picked(made)
    for rank, name in enumerate(TEN):
        least, most = within((9 - rank) / 45)
        assert least <= counts[name] <= most, name


def test_all_pairs_are_as_likely():
    rng = random.Random(5)
    counts = Counter(two_distinct(5, rng) for _ in range(PICKS))
    least, most = within(1 / 20)
    assert set(counts) == set(itertools.permutations(range(5), 2))
    assert least < min(counts.values())
    assert max(counts.values()) < most


def test_round_robin_is_exactly_fair():
    counts = picked(balancer("abcdefg", policy=RoundRobin()))
    assert len(counts) == 7
    assert max(counts.values()) - min(counts.values()) <= 1


def test_round_robin_stays_fair_while_the_set_changes():
    made = balancer("abcd", policy=RoundRobin(), slow_start=None)
    counts = Counter()
    for change in range(200):
        made.update([replica(name) for name in ("abcd" if change % 2 else "abcdef")])
        counts += picked(made, 60)
    assert max(counts[name] for name in "abcd") - min(counts[name] for name in "abcd") < 100


def test_round_robins_of_many_callers_start_apart():
    starts = {
        balancer(TEN, policy=RoundRobin(), seed=seed).pick(0.0).replica.id for seed in range(50)
    }
    assert len(starts) > 5


def test_two_choices_keep_queues_short():
    """Ten calls a replica and none ends: the longest queue of two choices is hardly longer."""
    longest = {}
    for policy in (LeastLoaded(), Random()):
        made = balancer([f"r{number}" for number in range(100)], policy=policy, seed=3)
        for _ in range(1000):
            made.pick(made.clock()).begin()
        longest[repr(policy)] = max(node.in_flight for node in made.snapshot.nodes)
    assert longest["LeastLoaded()"] <= 13
    assert longest["Random()"] >= 17


def test_latency_decides_where_nothing_is_in_flight():
    """One caller, one call at a time: counts in flight alone would be random (lesson of P2C)."""
    clock = Hand()
    made = balancer("ab", clock=clock)
    counts = Counter()
    for _ in range(10_000):
        node = made.pick(clock.now)
        node.begin()
        latency = 0.05 if node.replica.id == "a" else 0.005
        clock.now += latency
        node.end(latency, Outcome.OK, clock.now)
        counts[node.replica.id] += 1
    assert counts["a"] < 0.05 * counts["b"]
    assert counts["a"] >= 2, "a slow one is looked at again from time to time"
