"""The policies beside P2C: weights, keys, zones; and one that a user writes."""

import math
import random
from collections import Counter

import pytest

from shoal_balancer import (
    LeastLoaded,
    LoadReport,
    Locality,
    Node,
    Outcome,
    PeakEwma,
    Rendezvous,
    RoundRobin,
    WeightedRandom,
    WeightedRoundRobin,
)
from shoal_balancer.load import PendingCount
from tests.balancer.helpers import Hand, balancer, node_of, replica

NOW = 1000.0


def nodes_of(policy, **weights):
    return tuple(
        Node(replica(name, weight=weight), None, policy.load(), None)
        for name, weight in weights.items()
    )


def shares(policy, nodes, picks=10_000, now=NOW, seed=1):
    rng = random.Random(seed)
    counts = Counter(policy.choose(nodes, now, rng).replica.id for _ in range(picks))
    return {node.replica.id: counts[node.replica.id] / picks for node in nodes}


@pytest.mark.parametrize("kind", [WeightedRoundRobin, WeightedRandom])
def test_announced_weights_are_shares(kind):
    policy = kind()
    found = shares(policy, nodes_of(policy, a=3.0, b=1.0, c=1.0, d=0.0))
    assert found == {
        "a": pytest.approx(0.6, abs=0.02),
        "b": pytest.approx(0.2, abs=0.02),
        "c": pytest.approx(0.2, abs=0.02),
        "d": 0.0,
    }


def test_weighted_round_robin_is_smooth_and_exact():
    policy = WeightedRoundRobin()
    nodes = nodes_of(policy, a=2.0, b=1.0, c=1.0)
    rng = random.Random(3)
    picks = [policy.choose(nodes, NOW, rng).replica.id for _ in range(4000)]
    assert Counter(picks)["a"] == pytest.approx(2000, abs=2)
    # A half of all calls never comes as a burst: in any eight picks there are about four.
    windows = [picks[at : at + 8].count("a") for at in range(len(picks) - 8)]
    assert (min(windows), max(windows)) in {(3, 4), (3, 5), (4, 4), (4, 5)}


@pytest.mark.parametrize("kind", [WeightedRoundRobin, WeightedRandom])
def test_when_none_has_a_weight_all_are_alike(kind):
    policy = kind()
    found = shares(policy, nodes_of(policy, a=0.0, b=0.0))
    assert found["a"] == pytest.approx(0.5, abs=0.02)


def test_one_giant_does_not_make_the_search_for_a_turn_endless():
    policy = WeightedRoundRobin()
    names = {f"n{number}": 1.0 for number in range(50)} | {"giant": 1e9}
    found = shares(policy, nodes_of(policy, **names), picks=5000)
    # Ten times the mean at most, which it dominates itself.
    assert 0.9 < found["giant"] <= 1.0


def reported(policy, **utilisation):
    nodes = nodes_of(policy, **dict.fromkeys(utilisation, 1.0))
    for node, used in zip(nodes, utilisation.values(), strict=True):
        for at in (NOW - 20.0, NOW):
            if used is not None:
                node.load.report(LoadReport(utilisation=used, qps=100.0), at)
    return nodes


def test_reports_weigh_calls_per_utilisation():
    policy = WeightedRoundRobin()
    # The same work takes b twice the share of itself; c says nothing and counts as the mean.
    found = shares(policy, reported(policy, a=0.4, b=0.8, c=None))
    assert found["a"] / found["b"] == pytest.approx(2.0, rel=0.02)
    assert found["c"] == pytest.approx(1 / 3, abs=0.02)


def test_errors_count_as_utilisation():
    policy = WeightedRoundRobin()
    nodes = reported(policy, a=0.5, b=0.5)
    nodes[1].load.report(LoadReport(utilisation=0.5, qps=100.0, eps=50.0), NOW)
    found = shares(policy, nodes)
    assert found["a"] / found["b"] == pytest.approx(2.0, rel=0.02)


def test_first_reports_are_not_believed_and_old_ones_forgotten():
    load = WeightedRoundRobin().load()
    report = LoadReport(utilisation=0.5, qps=10.0)
    load.report(report, 0.0)
    assert load.weight(9.9) is None
    assert load.weight(10.0) == 20.0
    assert load.weight(180.1) is None
    # After a silence the first ones are not believed again.
    load.report(report, 200.0)
    assert load.weight(205.0) is None
    assert load.weight(210.0) == 20.0


@pytest.mark.parametrize("report", [LoadReport(), LoadReport(qps=5.0), LoadReport(utilisation=1.0)])
def test_a_report_that_says_nothing_changes_nothing(report):
    load = WeightedRoundRobin(blackout=0.0).load()
    load.report(LoadReport(utilisation=0.5, qps=10.0), 0.0)
    load.report(report, 1.0)
    assert load.weight(1.0) == 20.0


def test_weights_are_worked_out_again_for_another_set_and_after_a_second():
    policy = WeightedRandom()
    nodes = reported(policy, a=0.5, b=0.5)
    assert shares(policy, nodes)["a"] == pytest.approx(0.5, abs=0.02)
    nodes[0].load.report(LoadReport(utilisation=0.5, qps=300.0), NOW)
    assert shares(policy, nodes, now=NOW + 0.5)["a"] == pytest.approx(0.5, abs=0.02)
    assert shares(policy, nodes, now=NOW + 1.0)["a"] == pytest.approx(0.75, abs=0.02)
    assert shares(policy, nodes[1:]) == {"b": 1.0}


def keys(count=2000):
    return [f"user-{number}".encode() for number in range(count)]


def test_a_key_stays_with_its_replica_and_keys_spread_by_weight():
    policy = Rendezvous()
    nodes = nodes_of(policy, a=2.0, b=1.0, c=1.0)
    rng = random.Random(1)
    first = {key: policy.choose_for(key, nodes, NOW, rng) for key in keys()}
    assert first == {key: policy.choose_for(key, nodes, NOW, rng) for key in keys()}
    # Another caller, with another order of the list, agrees.
    assert first == {key: Rendezvous().choose_for(key, nodes[::-1], NOW, rng) for key in keys()}
    counts = Counter(node.replica.id for node in first.values())
    assert counts["a"] / 2000 == pytest.approx(0.5, abs=0.04)


def test_only_the_keys_of_one_that_leaves_move():
    policy = Rendezvous()
    nodes = nodes_of(policy, a=1.0, b=1.0, c=1.0, d=0.0)
    rng = random.Random(1)
    for key in keys(500):
        before = policy.choose_for(key, nodes, NOW, rng)
        after = policy.choose_for(key, nodes[1:], NOW, rng)
        assert before.replica.id != "d"
        assert after is before or before is nodes[0]


def test_a_hot_key_spills_over_to_its_next_replica_and_comes_back():
    policy = Rendezvous(bound=1.25)
    nodes = nodes_of(policy, a=1.0, b=1.0, c=1.0, d=1.0)
    rng = random.Random(1)
    home = policy.choose_for(b"hot", nodes, NOW, rng)
    for _ in range(40):
        policy.choose_for(b"hot", nodes, NOW, rng).begin()
    busy = sorted(node.in_flight for node in nodes)
    assert busy[-1] <= math.ceil(1.25 * 40 / 4)
    assert sum(busy) == 40
    for node in nodes:
        while node.in_flight:
            node.abandon()
    assert policy.choose_for(b"hot", nodes, NOW, rng) is home


def test_a_balancer_hands_the_key_to_the_policy_and_excludes_all_the_same():
    made = balancer("abc", policy=Rendezvous())
    home = made.pick(NOW, key=b"k")
    assert all(made.pick(NOW, key=b"k") is home for _ in range(20))
    assert made.pick(NOW, [home], key=b"k") is not home


def zoned(policy, **zones):
    return tuple(
        Node(replica(name, zone=zone), None, policy.load(), None) for name, zone in zones.items()
    )


def test_a_zone_keeps_its_calls_until_its_queues_grow_and_spills_gradually():
    policy = Locality("east", LeastLoaded())
    nodes = zoned(policy, a="east", b="east", c="west", d="west")
    rng = random.Random(1)
    seen = []
    for _ in range(40):
        chosen = policy.choose(nodes, NOW, rng)
        chosen.begin()
        seen.append(chosen.replica.zone)
    assert seen[:2] == ["east", "east"]
    west = sum(node.in_flight for node in nodes if node.replica.zone == "west")
    # Twice the queue at home is what a queue abroad is worth.
    assert 9 <= west <= 15
    assert seen.index("west") > 1


def test_a_zone_without_replicas_is_served_by_the_others_and_alone_it_serves_itself():
    policy = Locality("north", RoundRobin())
    nodes = zoned(policy, a="east", b="west")
    assert shares(policy, nodes)["a"] == pytest.approx(0.5, abs=0.01)
    only = zoned(policy, a="north", b="north")
    assert shares(policy, only)["a"] == pytest.approx(0.5, abs=0.01)


def test_a_slow_zone_loses_its_calls_by_latency_alone():
    policy = Locality("east", PeakEwma(), bias=1.5)
    nodes = zoned(policy, a="east", b="west")
    nodes[0].load.observe(0.010, NOW)
    nodes[1].load.observe(0.009, NOW)
    assert policy.choose(nodes, NOW, random.Random(1)) is nodes[0]
    nodes[0].load.observe(0.020, NOW)
    assert policy.choose(nodes, NOW, random.Random(1)) is nodes[1]


class Loyal:
    """What a user may write: the replica with the lowest id."""

    def load(self):
        return PendingCount()

    def choose(self, nodes, now, rng):
        return min(nodes, key=lambda node: node.replica.id)


def test_two_methods_make_a_policy():
    made = balancer("cab", policy=Loyal(), clock=Hand(0.0))
    assert {made.pick(0.0).replica.id for _ in range(10)} == {"a"}
    for _ in range(5):
        node_of(made, "a").begin()
        node_of(made, "a").end(0.01, Outcome.FAILED, 0.0)
    assert made.pick(0.0).replica.id == "b"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rendezvous(bound=1.0),
        lambda: Locality("", PeakEwma()),
        lambda: Locality("east", PeakEwma(), bias=0.5),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()
