"""Least reported: what replicas said, how long it is believed, and what it leads to."""

import random
from collections import Counter

import pytest

from shoal_balancer import LeastReported, LoadReport, Node
from tests.balancer.helpers import replica

NOW = 100.0


def said(queue, capacity=1.0):
    return LoadReport(utilisation=queue / capacity, named={"in_flight": float(queue)})


def nodes_of(policy, names="abcd"):
    nodes = tuple(Node(replica(name), None, policy.load(), None) for name in names)
    for node in nodes:
        node.load.observe(0.1, NOW)
    return nodes


def picks(policy, nodes, now=NOW, count=1000):
    rng = random.Random(1)
    return Counter(policy.choose(nodes, now, rng).replica.id for _ in range(count))


def test_the_shortest_queue_that_was_just_reported_is_chosen():
    policy = LeastReported()
    nodes = nodes_of(policy)
    for node, queue in zip(nodes, (5, 0, 3, 9), strict=True):
        node.load.report(said(queue), NOW)
    assert picks(policy, nodes) == {"b": 1000}


def test_own_calls_count_beside_what_was_reported():
    policy = LeastReported()
    nodes = nodes_of(policy, "ab")
    for node, queue in zip(nodes, (3, 1), strict=True):
        node.load.report(said(queue), NOW)
    for _ in range(3):
        nodes[1].begin()
    assert picks(policy, nodes) == {"a": 1000}


def test_a_report_fades_into_the_mean_with_the_time_that_calls_take():
    policy = LeastReported()
    (node,) = nodes_of(policy, "a")
    node.load.report(said(20), NOW)
    mean = policy._means.load
    assert node.load.cost(0, NOW) == pytest.approx(20.0)
    assert node.load.cost(0, NOW + 0.3) == pytest.approx(mean + (20.0 - mean) / 2.718, rel=0.01)
    assert node.load.cost(0, NOW + 10.0) == pytest.approx(mean)


def test_an_old_word_is_neither_trusted_nor_avoided():
    policy = LeastReported()
    nodes = nodes_of(policy)
    for node, queue in zip(nodes, (0, 0, 9, 9), strict=True):
        node.load.report(said(queue), 0.0)
    counts = picks(policy, nodes)
    assert min(counts.values()) > 150


def test_larger_replicas_bear_longer_queues():
    policy = LeastReported()
    nodes = nodes_of(policy, "ab")
    nodes[0].load.report(said(8, capacity=16.0), NOW)
    nodes[1].load.report(said(2, capacity=2.0), NOW)
    assert picks(policy, nodes) == {"a": 1000}


def test_without_named_calls_in_flight_the_utilisation_counts():
    policy = LeastReported()
    nodes = nodes_of(policy, "ab")
    nodes[0].load.report(LoadReport(utilisation=0.9), NOW)
    nodes[1].load.report(LoadReport(utilisation=0.2), NOW)
    assert picks(policy, nodes) == {"b": 1000}


def test_without_any_report_own_calls_decide_and_ties_are_random():
    policy = LeastReported()
    nodes = nodes_of(policy)
    counts = picks(policy, nodes)
    assert min(counts.values()) > 150
    nodes[0].begin()
    assert picks(policy, nodes)["a"] == 0


def test_one_that_is_known_to_be_busy_is_not_the_only_one_that_is_asked():
    policy = LeastReported()
    nodes = nodes_of(policy, "ab")
    nodes[0].load.report(said(6, capacity=8.0), NOW)
    # Nothing is known of the other one; it counts as what is known.
    assert picks(policy, nodes)["b"] > 300
    nodes[1].load.report(said(0, capacity=8.0), NOW)
    assert picks(policy, nodes) == {"b": 1000}


def test_one_that_fails_looks_busy_until_it_reports_again():
    policy = LeastReported()
    nodes = nodes_of(policy, "ab")
    for node in nodes:
        node.load.report(said(0), NOW)
    nodes[0].load.penalize(0.001, NOW)
    assert picks(policy, nodes) == {"b": 1000}
    nodes[0].load.report(said(0), NOW)
    assert picks(policy, nodes)["a"] > 300


def test_a_pick_looks_at_so_many_however_many_there_are():
    policy = LeastReported(among=5)
    nodes = nodes_of(policy, [f"r{number}" for number in range(1000)])
    looked = []
    for node in nodes:
        cost = node.load.cost
        node.load = type(
            "Counted", (), {"cost": lambda self, n, now, c=cost: looked.append(1) or c(n, now)}
        )()
    picks(policy, nodes, count=10)
    assert 30 <= len(looked) <= 50


def crowd(policy, count=200):
    nodes = nodes_of(policy, [f"r{number:03}" for number in range(count)])
    for node in nodes:
        node.load.report(said(5), NOW)
    return nodes


def test_one_that_was_called_lately_is_looked_at_again():
    policy = LeastReported()
    nodes = crowd(policy)
    first = policy.choose(nodes, NOW, random.Random(1))
    first.load.report(said(0), NOW)
    # Ten random ones of two hundred would find it once in twenty picks.
    assert picks(policy, nodes, count=10) == {first.replica.id: 10}


def test_one_that_was_called_lately_is_forgotten_after_some_calls():
    policy = LeastReported()
    nodes = crowd(policy)
    first = policy.choose(nodes, NOW, random.Random(1))
    rng = random.Random(2)
    others = {policy.choose(nodes, NOW, rng) for _ in range(10)}
    assert first not in others
    first.load.report(said(0), NOW)
    assert policy.choose(nodes, NOW, rng) is not first


@pytest.mark.parametrize("gone", [slice(0, 100), slice(100, 200)])
def test_one_that_is_not_offered_is_not_chosen_however_idle(gone):
    policy = LeastReported()
    nodes = crowd(policy)
    for node in nodes[gone]:
        node.load.report(said(0), NOW)
    picks(policy, nodes, count=30)
    left = tuple(node for node in nodes if node not in nodes[gone])
    chosen = {policy.choose(left, NOW, random.Random(seed)) for seed in range(50)}
    assert chosen <= set(left)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="among"):
        LeastReported(among=1)
