"""Another connection in a node's place: new calls go there, and nothing that is known is lost."""

from __future__ import annotations

import threading

import pytest

from shoal_balancer import Outcome, Status
from tests.balancer.helpers import Hand, balancer, node_of, replica


def call(made, node, outcome=Outcome.OK, seconds=0.01):
    node.begin()
    node.end(seconds, outcome, made.clock())


def test_new_calls_go_to_the_successor_and_old_ones_end_where_they_began():
    made = balancer("ab")
    old = node_of(made, "a")
    old.begin()
    assert made.succeed(old, "new way")
    new = node_of(made, "a")
    assert (new.endpoint, new.in_flight, new.retired) == ("new way", 0, False)
    assert (old.retired, old.in_flight) == (True, 1)
    assert old not in made.snapshot.ready
    ended = []
    old.when_idle(lambda: ended.append(True))
    assert ended == []
    old.end(0.01, Outcome.OK, made.clock())
    assert ended == [True]


def test_load_and_health_are_shared():
    clock = Hand()
    made = balancer("abcd", clock=clock)
    old = node_of(made, "a")
    for _ in range(3):
        call(made, old, seconds=0.2)
    made.succeed(old, "new way")
    new = node_of(made, "a")
    assert new.calls == 3
    assert new.load.estimate(clock()) == pytest.approx(0.2)
    # What fails on the old one counts against the replica.
    old.begin()
    old.end(0.1, Outcome.FAILED, clock())
    assert new.health.streak == 1


def test_an_ejected_replica_stays_ejected():
    clock = Hand()
    made = balancer("abcd", clock=clock)
    old = node_of(made, "a")
    while not old.health.ejected:
        call(made, old, Outcome.FAILED)
    made.succeed(old, "new way")
    assert node_of(made, "a").health.ejected
    assert node_of(made, "a") not in made.snapshot.ready


def test_who_leaves_or_has_left_has_no_successor():
    made = balancer("ab")
    left = node_of(made, "a")
    made.update([replica("a", status=Status.DRAINING), replica("b")])
    assert not made.succeed(left, "new way")
    assert left.endpoint != "new way"
    gone = balancer("a", reserve=0.0)
    node = node_of(gone, "a")
    gone.update([replica("c")])
    gone.clock.now += 1.0
    gone.tick()
    assert not gone.succeed(node, "new way")


def test_a_node_is_succeeded_once():
    made = balancer("ab")
    old = node_of(made, "a")
    assert made.succeed(old, "second")
    assert not made.succeed(old, "third")
    assert node_of(made, "a").endpoint == "second"


def test_a_node_in_reserve_is_succeeded_too():
    made = balancer("abc")
    vanished = node_of(made, "a")
    # All at once: the directory is more likely wrong, and they are called on.
    made.update([])
    assert made.succeed(vanished, "new way")
    assert node_of(made, "a").endpoint == "new way"
    assert node_of(made, "a") in made.snapshot.routable
    made.update([replica(name) for name in "abc"])
    assert node_of(made, "a").endpoint == "new way"


def test_no_call_is_left_on_a_node_that_was_found_idle():
    """As callers do it: begin, look, and pick again where the mark is set."""
    made = balancer("a", lock=threading.RLock())
    closed = []
    stop = threading.Event()
    wrong = []

    def calls():
        while not stop.is_set():
            node = made.pick(made.clock())
            node.begin()
            if node.retired:
                node.abandon()
                continue
            if node in closed:
                wrong.append(node)
            node.end(0.001, Outcome.OK, made.clock())

    threads = [threading.Thread(target=calls) for _ in range(3)]
    for each in threads:
        each.start()
    for number in range(300):
        node = node_of(made, "a")
        assert made.succeed(node, str(number))
        node.when_idle(lambda node=node: closed.append(node))
    stop.set()
    for each in threads:
        each.join(30)
    assert wrong == []
    assert len(set(closed)) == 300
