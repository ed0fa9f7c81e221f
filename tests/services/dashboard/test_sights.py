"""How a replica is judged, and what counts as something that happened."""

import pytest

from shoal_balancer import Replica, Status
from shoal_gateway.dashboard.sights import Reach, Roll, State, happened, judge


def replica(name="a-1", **facts):
    return Replica(name, "127.0.0.1", 1, **facts)


@pytest.mark.parametrize(
    ("facts", "reach", "ejectors", "state"),
    [
        ({}, Reach.ANSWERS, (), State.UP),
        ({}, Reach.UNASKED, (), State.UP),
        ({"status": Status.BUSY}, Reach.ANSWERS, (), State.BUSY),
        ({"status": Status.DRAINING}, Reach.ANSWERS, (), State.DRAINING),
        ({"enabled": False}, Reach.ANSWERS, (), State.DRAINING),
        ({}, Reach.ANSWERS, ("b-1",), State.EJECTED),
        ({"status": Status.BUSY}, Reach.ANSWERS, ("b-1",), State.EJECTED),
        ({}, Reach.SILENT, ("b-1",), State.SILENT),
        ({}, Reach.REFUSED, (), State.GONE),
        # Its port is closed: it has left, whatever it said last.
        ({"status": Status.DRAINING}, Reach.REFUSED, (), State.GONE),
        # A draining replica is not asked any more, so its silence says nothing.
        ({"status": Status.DRAINING}, Reach.SILENT, (), State.DRAINING),
    ],
)
def test_the_worst_that_is_known_counts(facts, reach, ejectors, state):
    assert judge("a", replica(**facts), reach, ejectors).state is state


def test_who_ejected_it_is_told():
    sight = judge("a", replica(), Reach.ANSWERS, ("b-1", "b-2"))
    assert sight.ejected_by == ("b-1", "b-2")
    assert "b-1, b-2" in sight.why


def test_one_that_left_is_remembered_for_a_while():
    roll = Roll(remembered=60.0)
    roll.update("a", (replica("a-1"), replica("a-2", status=Status.DRAINING)), 0.0)
    roll.update("a", (), 10.0)
    found = {each.replica.id: each for each in roll.sights({}, {}, 11.0)}
    assert {each.state for each in found.values()} == {State.GONE}
    assert found["a-1"].why == "it vanished from the directory"
    assert found["a-2"].why == "it has left in order"
    assert roll.sights({}, {}, 71.0) == ()


def test_one_that_comes_back_is_not_gone():
    roll = Roll()
    roll.update("a", (replica(),), 0.0)
    roll.update("a", (), 1.0)
    roll.update("a", (replica(),), 2.0)
    (sight,) = roll.sights({}, {}, 3.0)
    assert sight.state is State.UP


def look(*sights):
    return {sight.key: sight for sight in sights}


@pytest.mark.parametrize(
    ("before", "after", "kind", "words"),
    [
        (Reach.ANSWERS, Reach.REFUSED, "fault", "a-1 is gone"),
        (Reach.ANSWERS, Reach.SILENT, "fault", "a-1 does not answer"),
        (Reach.REFUSED, Reach.ANSWERS, "join", "a-1 is there"),
    ],
)
def test_what_happened_is_marked(before, after, kind, words):
    earlier, later = (look(judge("a", replica(), each)) for each in (before, after))
    (marker,) = happened(earlier, later, 7.0)
    assert (marker.at, marker.kind) == (7.0, kind)
    assert words in marker.text


def test_a_drain_and_its_end_are_no_faults():
    up = look(judge("a", replica(), Reach.ANSWERS))
    drains = look(judge("a", replica(status=Status.DRAINING), Reach.ANSWERS))
    gone = look(judge("a", replica(status=Status.DRAINING), Reach.REFUSED))
    assert [each.kind for each in happened(up, drains, 0.0)] == ["leave"]
    assert [each.kind for each in happened(drains, gone, 0.0)] == ["leave"]


def test_another_version_is_an_upgrade_also_when_it_was_away_between():
    old, new = replica(version="1"), replica(version="2")
    gone = look(judge("a", old, Reach.REFUSED))
    up = look(judge("a", new, Reach.ANSWERS))
    at_once = happened(look(judge("a", old, Reach.ANSWERS)), up, 0.0)
    for markers in (at_once, happened(gone, up, 0.0)):
        assert [(each.kind, each.text) for each in markers] == [("upgrade", "a-1: version 1 → 2")]


def test_a_successor_of_another_version_is_an_upgrade_and_one_of_the_same_is_not():
    before = look(judge("a", replica("a-1", version="1"), Reach.ANSWERS))
    for version, kind in (("2", "upgrade"), ("1", "join")):
        fresh = judge("a", replica("a-1.2", version=version), Reach.ANSWERS)
        assert [each.kind for each in happened(before, before | look(fresh), 0.0)] == [kind]


def test_nothing_happened():
    same = look(judge("a", replica(), Reach.ANSWERS))
    assert happened(same, same, 0.0) == []
    # From one that was not asked yet to one that answers is no news either.
    assert happened(look(judge("a", replica(), Reach.UNASKED)), same, 0.0) == []
