"""A canary gets its share of the calls, no more and no less, whoever is there to take them."""

import random
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_balancer import Canary, LeastLoaded, LeastReported, Node, Outcome, PeakEwma, RoundRobin
from tests.balancer.helpers import balancer, node_of, replica

NOW = 1000.0


def versioned(policy, **versions):
    return tuple(
        Node(replica(name, version=version), None, policy.load(), None)
        for name, version in versions.items()
    )


def drawn(policy, nodes, picks, seed=1):
    rng = random.Random(seed)
    return Counter(policy.choose(nodes, NOW, rng).replica.version for _ in range(picks))


@given(st.floats(0.001, 0.999), st.integers(1, 3000), st.integers(0, 100))
def test_at_any_moment_the_share_is_right_but_for_a_few_calls(share, picks, seed):
    policy = Canary({"2": share}, RoundRobin())
    nodes = versioned(policy, a="1", b="1", c="1", d="2")
    # Of chance it would be off by tens: sqrt(3000 / 4) is 27.
    assert abs(drawn(policy, nodes, picks, seed)["2"] - share * picks) <= 6.0


def test_the_share_does_not_depend_on_how_many_replicas_a_version_has():
    policy = Canary({"2": 0.1}, PeakEwma())
    few = versioned(policy, a="1", b="2")
    many = versioned(policy, a="1", b="2", c="2", d="2", e="2")
    assert drawn(policy, few, 1000)["2"] == pytest.approx(100, abs=5)
    assert drawn(policy, many, 1000)["2"] == pytest.approx(100, abs=5)


@pytest.mark.parametrize("every", [2, 3, 5, 10])
def test_calls_that_come_in_turns_get_the_share_each(every):
    policy = Canary({"2": 0.1}, RoundRobin())
    nodes = versioned(policy, a="1", b="2")
    rng = random.Random(1)
    versions = [policy.choose(nodes, NOW, rng).replica.version for _ in range(every * 1000)]
    for method in range(every):
        assert versions[method::every].count("2") == pytest.approx(100, abs=10)


def test_several_versions_have_their_shares_and_the_rest_goes_to_all_others():
    policy = Canary({"3": 0.2, "2": 0.3}, RoundRobin())
    nodes = versioned(policy, a="1", b="0", c="2", d="3")
    found = drawn(policy, nodes, 1000)
    assert found["3"] == pytest.approx(200, abs=6)
    assert found["2"] == pytest.approx(300, abs=6)
    assert found["1"] == pytest.approx(250, abs=6)
    assert found["0"] == pytest.approx(250, abs=6)


def test_a_share_that_nobody_can_take_goes_to_those_who_are_there():
    policy = Canary({"3": 0.2, "2": 0.6}, RoundRobin())
    assert drawn(policy, versioned(policy, a="1"), 100) == {"1": 100}
    assert drawn(policy, versioned(policy, a="2"), 100) == {"2": 100}
    both = drawn(policy, versioned(policy, a="2", b="3"), 1000)
    assert both["2"] == pytest.approx(750, abs=6)
    assert drawn(policy, versioned(policy, a="1", b="3"), 1000)["3"] == pytest.approx(200, abs=6)


def test_a_whole_share_leaves_nothing_to_the_rest():
    policy = Canary({"2": 1.0}, RoundRobin())
    assert drawn(policy, versioned(policy, a="1", b="2"), 100) == {"2": 100}
    assert drawn(policy, versioned(policy, a="1"), 100) == {"1": 100}


def test_an_ejected_canary_gets_nothing_until_it_is_back():
    made = balancer(policy=Canary({"2": 0.5}, LeastLoaded()))
    made.update([replica("a", version="1"), replica("b", version="2")])
    now = made.clock()
    for _ in range(5):
        node_of(made, "b").begin()
        node_of(made, "b").end(0.01, Outcome.FAILED, now)
    assert {made.pick(now).replica.version for _ in range(50)} == {"1"}
    # A retry of a call that has tried the others goes to the canary all the same.
    assert made.pick(now, (node_of(made, "a"),)).replica.version == "2"


def test_a_replica_that_comes_is_counted_to_its_version():
    made = balancer(policy=Canary({"2": 0.25}, LeastLoaded()), slow_start=None)
    made.update([replica("a", version="1")])
    assert made.pick(NOW).replica.version == "1"
    made.update([replica("a", version="1"), replica("b", version="2")])
    found = Counter(made.pick(NOW).replica.version for _ in range(1000))
    assert found["2"] == pytest.approx(250, abs=6)


def test_threads_share_one_sequence():
    policy = Canary({"2": 0.1}, RoundRobin())
    nodes = versioned(policy, a="1", b="2")
    policy.choose(nodes, NOW, random.Random(1))
    found = []

    def pick():
        found.append(drawn(policy, nodes, 5000))

    threads = [threading.Thread(target=pick) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each["2"] for each in found) == pytest.approx(2000, abs=8)


def test_the_inner_policy_decides_whether_load_reports_are_wanted():
    assert not Canary({"2": 0.1}, PeakEwma()).reports
    assert Canary({"2": 0.1}, LeastReported()).reports
    assert repr(Canary({"2": 0.1}, PeakEwma())) == "Canary({'2': 0.1}, PeakEwma(tau=10))"


@pytest.mark.parametrize("shares", [{}, {"2": 0.0}, {"2": -0.1}, {"2": 0.7, "3": 0.5}])
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(ValueError, match="shares must"):
        Canary(shares, PeakEwma())


def test_a_share_may_be_a_range_s_and_a_version_s_own_comes_first():
    policy = Canary({"1.1.7": 0.1, "==1.1.*": 0.2}, RoundRobin())
    nodes = versioned(policy, a="1.0.4", b="1.1.0", c="1.1.7", d="1.1.3", e="unknown")
    found = drawn(policy, nodes, 1000)
    assert found["1.1.7"] == pytest.approx(100, abs=6)
    assert found["1.1.0"] + found["1.1.3"] == pytest.approx(200, abs=6)
    assert found["1.0.4"] + found["unknown"] == pytest.approx(700, abs=6)


def test_a_range_that_cannot_be_read_is_said_at_once():
    with pytest.raises(ValueError, match="is no version"):
        Canary({">=new": 0.1}, RoundRobin())
