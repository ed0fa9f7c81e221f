"""shoal.Leadership among directories of one process: terms, their end, and what comes after."""

from __future__ import annotations

import logging
import os
import threading

import pytest

import shoal
from tests.support.waiting import eventually

WAIT = 60.0


def candidates(operator, chroot, name="x"):
    path = f"/{chroot.partition('/')[2]}/leaders/{name}"
    return operator.get_children(path) if operator.exists(path) else []


class Crown:
    """Whoever leads writes down under which fence, and does nothing until it is over."""

    def __init__(self):
        self.terms = []
        self.ends = []
        self.at_once = 0
        self.most = 0
        self._lock = threading.Lock()

    def lead(self, term):
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.terms.append(term)
        assert term.over.wait(WAIT)
        with self._lock:
            self.at_once -= 1
            self.ends.append(term)


@pytest.fixture
def two(directories):
    return directories(), directories()


def test_one_leads_and_when_it_goes_the_next_does_under_a_higher_fence(two, operator, chroot):
    crown = Crown()
    first, second = (shoal.Leadership(each, "x", crown.lead) for each in two)
    with second:
        with first:
            eventually(lambda: len(candidates(operator, chroot)) == 2)
            eventually(lambda: first.leads or second.leads)
            leading = first if first.leads else second
            eventually(lambda: len(crown.terms) == 1)
            assert leading.close()
            assert not leading.leads
            eventually(lambda: len(crown.terms) == 2)
        assert crown.terms[0].over.is_set()
        assert crown.terms[1].fence > crown.terms[0].fence
    assert crown.most == 1
    eventually(lambda: candidates(operator, chroot) == [])
    with pytest.raises(shoal.CoordinationError, match="started already"):
        first.start()


def test_a_session_that_expires_ends_the_term_and_another_begins(two, zookeeper):
    crown = Crown()
    with shoal.Leadership(two[0], "x", crown.lead) as leadership:
        eventually(lambda: len(crown.terms) == 1)
        zookeeper.expire_session(two[0]._session.client.client_id)
        eventually(lambda: len(crown.ends) == 1)
        assert not crown.terms[0].leads
        with pytest.raises(shoal.LockLostError, match="session has ended"):
            crown.terms[0].check()
        # It stands again by itself, when its function has returned.
        eventually(lambda: len(crown.terms) == 2)
        assert crown.terms[1].fence > crown.terms[0].fence
        assert leadership.leads
    assert crown.most == 1


def test_who_does_not_return_is_not_led_over_by_itself(two, zookeeper):
    release, begun = threading.Event(), []

    def stubborn(term):
        begun.append(term)
        if len(begun) == 1:
            assert release.wait(WAIT)

    leadership = shoal.Leadership(two[0], "x", stubborn)
    with leadership:
        eventually(lambda: len(begun) == 1)
        zookeeper.expire_session(two[0]._session.client.client_id)
        assert begun[0].over.wait(WAIT)
        assert not leadership.close(timeout=0.2)
        assert len(begun) == 1
        release.set()
        assert leadership.close(timeout=WAIT)
    assert len(begun) == 1


def test_a_function_that_fails_is_told_of_and_tried_again(two, caplog):
    terms = []

    def lead(term):
        terms.append(term)
        if len(terms) == 1:
            raise ZeroDivisionError
        term.over.wait(WAIT)

    with caplog.at_level(logging.ERROR), shoal.Leadership(two[0], "x", lead):
        eventually(lambda: len(terms) == 2)
    assert "ZeroDivisionError" in caplog.text
    assert terms[1].fence > terms[0].fence


def test_close_while_another_leads_leaves_the_line(two, operator, chroot):
    crown = Crown()
    with shoal.Leadership(two[0], "x", crown.lead):
        eventually(lambda: len(crown.terms) == 1)
        waiting = shoal.Leadership(two[1], "x", crown.lead)
        waiting.start()
        eventually(lambda: len(candidates(operator, chroot)) == 2)
        assert waiting.close(timeout=WAIT)
        eventually(lambda: len(candidates(operator, chroot)) == 1)
    assert len(crown.terms) == 1


def test_without_zookeeper_nobody_leads_and_close_does_not_wait(directories):
    directory = directories("127.0.0.1:1/x")
    with shoal.Leadership(directory, "x", Crown().lead) as leadership:
        assert not leadership.leads
    assert not leadership.leads


def test_a_closed_directory_ends_it(two):
    crown = Crown()
    leadership = shoal.Leadership(two[0], "x", crown.lead)
    leadership.start()
    eventually(lambda: len(crown.terms) == 1)
    two[0].close()
    eventually(lambda: len(crown.ends) == 1)
    assert leadership.close(timeout=WAIT)


def test_a_forked_child_does_not_lead(two):
    crown = Crown()
    with shoal.Leadership(two[0], "x", crown.lead) as leadership:
        eventually(lambda: leadership.leads)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                told = crown.terms and crown.terms[0].over.is_set() and not crown.terms[0].leads
                code = 0 if told and not leadership.leads else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert leadership.leads
        assert not crown.terms[0].over.is_set()
