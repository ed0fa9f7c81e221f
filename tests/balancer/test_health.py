"""Success rate, panic, reach, slow start and the return of a set that was down."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_balancer import Ejection, LeastLoaded, Outcome, Random, SlowStart, Subset
from tests.balancer.helpers import Hand, balancer, names, node_of, replica

OK, FAILED = Outcome.OK, Outcome.FAILED


def ends(made, name, *outcomes, every=0.0):
    for outcome in outcomes:
        made.clock.now += every
        node = node_of(made, name)
        node.begin()
        node.end(0.01, outcome, made.clock())


def ejected(made):
    return names(node for node in made.snapshot.nodes if node.health.ejected)


def test_one_that_fails_every_third_call_is_ejected_though_never_five_in_a_row():
    made = balancer("abc", clock=Hand(0.0))
    ends(made, "a", *[FAILED, OK, OK] * 10, every=0.1)
    assert ejected(made) == ["a"]


def test_one_that_fails_every_tenth_call_stays():
    made = balancer("abc", clock=Hand(0.0))
    ends(made, "a", *([FAILED] + [OK] * 9) * 30, every=0.05)
    assert ejected(made) == []


def test_few_calls_say_nothing_of_the_share():
    made = balancer("abc", clock=Hand(0.0), ejection=Ejection(volume=10))
    # Every second one, and eight of them after the first.
    ends(made, "a", *[FAILED, OK] * 4, FAILED)
    assert ejected(made) == []
    ends(made, "a", OK, FAILED)
    assert ejected(made) == ["a"]


def test_failures_of_long_ago_are_forgotten():
    made = balancer("abc", clock=Hand(0.0))
    ends(made, "a", *[FAILED, FAILED, OK] * 3)
    made.clock.now += 31.0
    ends(made, "a", *([FAILED] + [OK] * 9) * 2)
    assert ejected(made) == []


def test_a_long_good_past_does_not_hide_a_bad_present():
    made = balancer("abc", clock=Hand(0.0))
    ends(made, "a", *[OK] * 100_000)
    ends(made, "a", *[FAILED, OK] * 15, every=0.1)
    assert ejected(made) == ["a"]


def test_what_it_failed_before_its_return_is_not_held_against_it():
    made = balancer("abc", clock=Hand(0.0))
    ends(made, "a", *[FAILED, OK] * 15, every=0.1)
    assert ejected(made) == ["a"]
    made.clock.now += 10.0
    probe = made.pick(made.clock())
    assert probe is node_of(made, "a")
    probe.begin()
    probe.end(0.01, OK, made.clock())
    assert ejected(made) == []
    ends(made, "a", FAILED)
    assert ejected(made) == []


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.booleans()), max_size=200))
def test_marks_stay_few_and_in_order(calls):
    made = balancer("abc", clock=Hand(0.0), ejection=Ejection(failures=1000, success_rate=0.0))
    for pause, good in calls:
        ends(made, "a", OK if good else FAILED, every=pause)
        marks = node_of(made, "a").health.marks
        assert len(marks) <= 11
        assert marks == sorted(marks)


def test_out_of_reach_is_passed_over_while_another_is_not():
    made = balancer("abc", clock=Hand(0.0))
    made.reach(node_of(made, "a"), reachable=False)
    assert names(made.snapshot.ready) == ["b", "c"]
    made.reach(node_of(made, "b"), reachable=False)
    made.reach(node_of(made, "c"), reachable=False)
    # Somebody has to be tried, or nobody would ever know.
    assert names(made.snapshot.ready) == ["a", "b", "c"]
    made.reach(node_of(made, "a"), reachable=True)
    assert names(made.snapshot.ready) == ["a"]
    assert "2 out of reach" in repr(made)


def test_an_ejected_one_is_no_probe_while_it_is_out_of_reach():
    made = balancer("abc", clock=Hand(0.0))
    ends(made, "a", *[FAILED] * 5)
    made.reach(node_of(made, "a"), reachable=False)
    made.clock.now = 100.0
    assert {made.pick(100.0).replica.id for _ in range(20)} == {"b", "c"}
    made.reach(node_of(made, "a"), reachable=True)
    assert made.pick(100.0).replica.id == "a"


def test_panic_calls_the_ejected_when_too_few_are_left():
    made = balancer("abcdef", clock=Hand(0.0))
    for name in "abc":
        ends(made, name, *[FAILED] * 5)
    assert names(made.snapshot.ready) == ["d", "e", "f"]
    assert not made.snapshot.panic
    made.reach(node_of(made, "d"), reachable=False)
    # Two of six could not bear the load of all; d has no connection to call it over.
    assert names(made.snapshot.ready) == ["a", "b", "c", "e", "f"]
    assert made.snapshot.panic
    # An ejected one that answers now is well again, without a probe.
    ends(made, "a", OK)
    assert ejected(made) == ["b", "c"]
    assert names(made.snapshot.ready) == ["a", "e", "f"]
    assert not made.snapshot.panic


def test_panic_can_be_switched_off():
    made = balancer("abcd", clock=Hand(0.0), ejection=Ejection(panic=0.0))
    for name in "ab":
        ends(made, name, *[FAILED] * 5)
    made.reach(node_of(made, "c"), reachable=False)
    assert names(made.snapshot.ready) == ["d"]


def share_of(made, name, picks=4000):
    now = made.clock()
    return sum(made.pick(now).replica.id == name for _ in range(picks)) / picks


@pytest.mark.parametrize("policy", [LeastLoaded(), Random()], ids=repr)
def test_a_newcomer_gets_a_tenth_of_its_share_and_all_of_it_after_ten_seconds(policy):
    made = balancer("abc", clock=Hand(0.0), policy=policy)
    assert share_of(made, "a") == pytest.approx(1 / 3, abs=0.03)
    made.update([replica(name) for name in "abcd"])
    assert share_of(made, "d") == pytest.approx(0.025, abs=0.01)
    made.clock.now = 5.0
    assert share_of(made, "d") == pytest.approx(0.125, abs=0.02)
    made.clock.now = 10.0
    assert share_of(made, "d") == pytest.approx(0.25, abs=0.03)
    assert node_of(made, "d").warming is None


def test_where_all_are_new_nobody_starts_slowly():
    made = balancer("", clock=Hand(0.0))
    made.update([replica(name) for name in "ab"])
    assert [node.warming for node in made.snapshot.nodes] == [None, None]
    # A set that was replaced whole is new as well.
    made.update([replica(name) for name in "cd"])
    assert [node.warming for node in made.snapshot.nodes] == [None, None]


def test_newcomers_alone_share_all_calls():
    made = balancer("a", clock=Hand(0.0), policy=Random())
    made.update([replica(name) for name in "abc"])
    made.update([replica(name) for name in "bc"])
    assert share_of(made, "b") == pytest.approx(0.5, abs=0.03)


def test_without_a_slow_start_a_newcomer_gets_its_share_at_once():
    made = balancer("ab", clock=Hand(0.0), policy=Random(), slow_start=None)
    made.update([replica(name) for name in "abc"])
    assert share_of(made, "c") == pytest.approx(1 / 3, abs=0.03)


def down(members):
    made = balancer(members, clock=Hand(0.0), policy=Random())
    for node in made.snapshot.nodes:
        made.reach(node, reachable=False)
    assert made.snapshot.down
    return made


def let_through(made, picks=4000):
    now = made.clock()
    return sum(made.pick(now) is not None for _ in range(picks)) / picks


def test_the_first_one_back_gets_its_own_share_and_not_everything():
    made = down("abcd")
    # While none is there nothing is held back: somebody has to notice.
    assert let_through(made) == 1.0
    made.reach(node_of(made, "a"), reachable=True)
    assert let_through(made) == pytest.approx(0.25, abs=0.03)
    made.clock.now = 6.0
    assert let_through(made) == pytest.approx(0.6, abs=0.03)
    made.clock.now = 10.0
    assert let_through(made) == 1.0
    assert made.snapshot.recovering is None


def test_with_half_of_them_back_all_is_let_through():
    made = down("abcd")
    made.reach(node_of(made, "a"), reachable=True)
    made.reach(node_of(made, "b"), reachable=True)
    assert let_through(made) == 1.0


def test_one_of_many_that_breaks_and_comes_back_is_no_recovery():
    made = balancer("abcd", clock=Hand(0.0), policy=Random())
    for name in "abc":
        made.reach(node_of(made, name), reachable=False)
    made.reach(node_of(made, "a"), reachable=True)
    assert let_through(made) == 1.0


def test_a_set_of_one_comes_back_whole():
    made = down("a")
    made.reach(node_of(made, "a"), reachable=True)
    assert let_through(made) == 1.0


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.floats(0.0, 4.0)), max_size=40)
)
def test_whatever_is_reached_somebody_is_ready_and_nothing_unreachable_beside_reachable(steps):
    made = balancer("abcde", clock=Hand(0.0))
    for name, good, pause in steps:
        made.clock.now += pause
        made.reach(node_of(made, name), reachable=good)
        snapshot = made.snapshot
        assert snapshot.ready
        reached = {node.reachable for node in snapshot.ready}
        assert reached == {True} or not any(node.reachable for node in snapshot.routable)
        assert snapshot.down is not any(node.reachable for node in snapshot.routable)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ejection(volume=0),
        lambda: Ejection(window=0.0),
        lambda: Ejection(success_rate=1.5),
        lambda: Ejection(panic=-0.1),
        lambda: SlowStart(window=0.0),
        lambda: SlowStart(floor=0.0),
        lambda: Subset(size=0),
        lambda: Subset(size=60, above=50),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()


def fleet(count):
    return [replica(f"r{number:04}") for number in range(count)]


def test_small_sets_are_used_whole():
    members = fleet(50)
    assert Subset().of(members, "caller") == tuple(members)


def test_a_caller_has_its_size_always_the_same_and_others_have_others():
    members = fleet(200)
    rule = Subset(size=20, above=50)
    mine = rule.of(members, "one")
    assert len(mine) == 20
    shuffled = random.Random(1).sample(members, len(members))
    assert set(rule.of(shuffled, "one")) == set(mine)
    assert set(rule.of(members, "other")) != set(mine)


def test_one_that_leaves_changes_one_and_those_that_drain_stay_in_sight():
    members = fleet(200)
    rule = Subset()
    mine = set(rule.of(members, "one"))
    gone = next(iter(mine))
    after = set(rule.of([member for member in members if member != gone], "one"))
    assert len(mine - after) == 1
    draining = replica(gone.id, status="DRAINING")
    kept = rule.of([draining if member == gone else member for member in members], "one")
    assert draining in kept
    assert set(kept) - {draining} == after


def test_connections_per_replica_stay_within_the_binomial_law():
    members, callers = fleet(100), 400
    rule = Subset(size=20, above=50)
    counts = dict.fromkeys((member.id for member in members), 0)
    for caller in range(callers):
        for member in rule.of(members, f"caller-{caller}"):
            counts[member.id] += 1
    mean = callers * 20 / 100
    root = (callers * 0.2 * 0.8) ** 0.5
    assert sum(counts.values()) == callers * 20
    assert max(counts.values()) < mean + 4.5 * root
    assert min(counts.values()) > mean - 4.5 * root
