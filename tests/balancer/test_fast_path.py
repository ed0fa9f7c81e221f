"""What a call that goes well costs: counted, not timed."""

from __future__ import annotations

import threading

import pytest

from shoal_balancer import LeastLoaded, Outcome, PeakEwma, Random, RoundRobin
from tests.balancer.helpers import Hand, balancer, node_of, replica


class Counted:
    """A re-entrant lock that knows how often it was taken."""

    def __init__(self):
        self.taken = 0
        self._lock = threading.RLock()

    def __enter__(self):
        self._lock.acquire()
        self.taken += 1

    def __exit__(self, *_):
        self._lock.release()


def call(made, outcome=Outcome.OK):
    node = made.pick(made.clock())
    node.begin()
    node.end(0.01, outcome, made.clock())
    return node


@pytest.mark.parametrize("policy", [PeakEwma(), LeastLoaded(), RoundRobin(), Random()], ids=repr)
def test_good_and_cancelled_calls_take_no_lock(policy):
    lock = Counted()
    made = balancer("abc", policy=policy, lock=lock)
    lock.taken = 0
    for _ in range(1000):
        call(made)
        call(made, Outcome.NEUTRAL)
    assert lock.taken == 0


def test_while_one_is_ejected_the_others_take_no_lock():
    lock = Counted()
    made = balancer("abc", lock=lock)
    for _ in range(5):
        node = node_of(made, "a")
        node.begin()
        node.end(0.01, Outcome.FAILED, made.clock())
    assert node.health.ejected
    lock.taken = 0
    for _ in range(1000):
        call(made)
    assert lock.taken == 0


@pytest.mark.parametrize("size", [2, 3, 1000])
def test_a_pick_looks_at_two_however_many_there_are(size):
    class Looked:
        def __init__(self):
            self.count = 0

        def cost(self, in_flight, now):
            self.count += 1
            return 1.0

        def seed(self, peers, now):
            pass

        def estimate(self, now):
            return None

    looked = Looked()
    policy = PeakEwma()
    policy.load = lambda: looked
    made = balancer([f"r{number}" for number in range(size)], policy=policy)
    for _ in range(100):
        made.pick(made.clock())
    assert looked.count == 200


def test_an_end_without_a_begin_is_loud():
    made = balancer("a")
    with pytest.raises(IndexError):
        made.pick(0.0).end(0.1, Outcome.OK, 0.0)


def test_a_balancer_says_where_it_stands():
    made = balancer("abcd", clock=Hand(0.0))
    for _ in range(5):
        node_of(made, "a").begin()
        node_of(made, "a").end(0.01, Outcome.FAILED, 0.0)
    made.update([replica(name) for name in "abc"])
    assert repr(made) == (
        "<Balancer PeakEwma(tau=10): 3 replicas, 2 ready, 1 ejected, 1 in reserve (0 in use)>"
    )
    assert repr(node_of(made, "a")) == "<Node a 127.0.0.1:1 in_flight=0 ejected>"
