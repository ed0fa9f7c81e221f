"""How long something is held, by a clock of the holder's own."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from shoal.recipes.tenure import Tenure, uptime


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
    tenure.prove(1, 109.0, 10.0)
    assert not tenure.held
    (reason,) = told
    assert "ZooKeeper has not answered" in reason == tenure.over


def test_an_answer_counts_from_when_its_question_was_sent():
    clock = Clock()
    tenure, _ = make(clock)
    clock.now = 108.0
    tenure.prove(1, 104.0, 10.0)
    assert tenure.until == 114.0
    # An older one that comes later takes nothing back.
    tenure.prove(1, 101.0, 10.0)
    assert tenure.until == 114.0


def test_an_answer_that_comes_after_the_deadline_proves_nothing():
    clock = Clock()
    tenure, told = make(clock)
    clock.now = 110.5
    tenure.prove(1, 109.0, 10.0)
    assert not tenure.held
    assert len(told) == 1


def test_another_sessions_answer_proves_nothing():
    clock = Clock()
    tenure, _ = make(clock)
    tenure.prove(2, 105.0, 10.0)
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
def test_it_is_never_held_longer_after_the_last_sent_question_than_the_session(steps):
    clock = Clock()
    sent_last = clock.now
    tenure, _ = make(clock)
    over = False
    for passed, age in steps:
        clock.now += passed
        over = over or not tenure.held
        sent = clock.now - age
        tenure.prove(1, sent, 10.0)
        if not over:
            sent_last = max(sent_last, sent)
        assert tenure.held is (not over and clock.now < sent_last + 10.0)
        over = over or not tenure.held


def test_the_clock_goes_on_and_is_not_the_wall_clock():
    first = uptime()
    assert uptime() >= first
    assert abs(uptime() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
