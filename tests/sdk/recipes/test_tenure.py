"""How long something is held, by a clock of the holder's own."""

from __future__ import annotations

import threading
import time
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.recipes.tenure import Proofs, Tenure, uptime


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def make(clock, until=110.0):
    told = []
    return Tenure("/x", 7, 1, until, clock=clock, told=told.append), told


def test_it_is_held_until_its_deadline_and_never_again_after():
    clock = Clock()
    tenure, told = make(clock)
    clock.now = 109.9
    assert tenure.held
    clock.now = 110.0
    assert not tenure.held
    assert tenure.lost.is_set()
    clock.now = 101.0
    assert not tenure.held
    tenure.prove(1, 119.0)
    assert not tenure.held
    (reason,) = told
    assert "ZooKeeper has not answered" in reason == tenure.over


def test_a_proof_moves_the_deadline_and_never_back():
    clock = Clock()
    tenure, _ = make(clock)
    clock.now = 108.0
    tenure.prove(1, 114.0)
    assert tenure.until == 114.0
    # An older one that comes later takes nothing back.
    tenure.prove(1, 111.0)
    assert tenure.until == 114.0


def test_an_answer_proves_what_was_sent_long_enough_before_it():
    proofs = Proofs()
    # Nothing is known of before: then a ping of kazoo's, a third of the timeout ago, not told yet.
    proofs.sent(1, 100.0)
    assert proofs.until(1, 100.0, 12.0) == pytest.approx(105.0)
    proofs.sent(1, 102.0)
    # The first may not have been told to the leader when this one was carried out.
    assert proofs.until(1, 102.0, 12.0) == pytest.approx(107.0)
    proofs.sent(1, 103.5)
    assert proofs.until(1, 103.5, 12.0) == pytest.approx(112.0)
    proofs.sent(1, 105.0)
    assert proofs.until(1, 105.0, 12.0) == pytest.approx(114.0)
    # After a long silence it is the pings again.
    assert proofs.until(1, 200.0, 12.0) == pytest.approx(205.0)


def test_something_may_be_sent_while_an_answer_is_judged():
    proofs = Proofs()

    class Interrupted(float):
        """As if another thread sent something at each look at what was sent."""

        def __le__(self, other):
            proofs.sent(1, 105.0)
            return float(self) <= other

    proofs.sent(1, Interrupted(100.0))
    assert proofs.until(1, 104.0, 10.0) == 110.0


def test_what_was_sent_in_another_session_proves_nothing_for_this():
    proofs = Proofs()
    for now in (100.0, 104.0):
        proofs.sent(1, now)
    proofs.sent(2, 104.0)
    assert proofs.until(2, 104.0, 12.0) == pytest.approx(109.0)
    # An answer that comes after its session.
    assert proofs.until(1, 104.0, 12.0) == pytest.approx(109.0)


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=60), st.floats(0.0, 4.0))
def test_no_session_is_believed_in_for_longer_than_its_leader_keeps_it(gaps, ping):
    timeout = 12.0
    proofs = Proofs()
    heard = []
    for sent in accumulate(gaps, initial=100.0):
        # kazoo's pings leave no silence longer than a third; when they came is not known.
        heard.append(sent - timeout / 4 - ping)
        proofs.sent(1, sent)
        heard.append(sent)
    # What was heard in the last quarter of the timeout may not have been told.
    told = max(each for each in heard if each <= sent - timeout / 4)
    assert proofs.until(1, sent, timeout) <= told + timeout + 1e-9


def test_an_answer_that_comes_after_the_deadline_proves_nothing():
    clock = Clock()
    tenure, told = make(clock)
    clock.now = 110.5
    tenure.prove(1, 119.0)
    assert not tenure.held
    assert len(told) == 1


def test_another_sessions_answer_proves_nothing():
    clock = Clock()
    tenure, _ = make(clock)
    tenure.prove(2, 115.0)
    assert tenure.until == 110.0


def test_an_orderly_end_is_no_loss():
    clock = Clock()
    tenure, told = make(clock)
    assert tenure.end()
    assert not tenure.end()
    tenure.lose("later")
    clock.now = 200.0
    assert not tenure.held
    assert (told, tenure.lost.is_set(), tenure.over) == ([], False, "it was released")


def test_an_end_that_comes_too_late_says_so():
    clock = Clock()
    tenure, told = make(clock)
    clock.now = 111.0
    assert not tenure.end()
    assert len(told) == 1


def test_of_many_who_find_it_lost_one_tells():
    clock = Clock()
    tenure, told = make(clock)
    clock.now = 111.0
    threads = [threading.Thread(target=lambda: tenure.held) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1


def test_the_childs_copy_is_over_even_if_the_parent_was_in_the_middle_of_it():
    tenure, told = make(Clock())
    with tenure._lock:
        tenure.abandon()
        asked = []
        # Another thread, for the lock that is held here is reentrant.
        asking = threading.Thread(target=lambda: asked.append((tenure.held, tenure.end())))
        asking.start()
        asking.join(5)
    assert asked == [(False, False)]
    assert tenure.lost.is_set()
    assert told == []


@given(st.lists(st.tuples(st.floats(0.0, 12.0), st.floats(0.0, 12.0)), max_size=20))
def test_it_is_never_held_after_the_latest_proof_that_came_in_time(steps):
    clock = Clock()
    latest = 110.0
    tenure, _ = make(clock)
    over = False
    for passed, lasts in steps:
        clock.now += passed
        over = over or not tenure.held
        tenure.prove(1, clock.now + lasts)
        if not over:
            latest = max(latest, clock.now + lasts)
        assert tenure.held is (not over and clock.now < latest)
        over = over or not tenure.held


def test_the_clock_goes_on_and_is_not_the_wall_clock():
    first = uptime()
    assert uptime() >= first
    assert abs(uptime() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
