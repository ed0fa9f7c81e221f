"""``shoal top``: rows out of looks, their order, and single keys."""

import os
import termios
import threading
from pathlib import Path

import pytest

from shoal import LoadReport, Replica, Status
from shoal_gateway.cli import keyboard as keyboards
from shoal_gateway.cli.keyboard import Keyboard
from shoal_gateway.cli.toprows import COLUMNS, ENDED, Order, document, jobs_of, rows_of
from shoal_gateway.client import TERMINAL, state_name
from shoal_gateway.lookout import Look, Sighting


def sighting(name, service="appmanager", *, port=1, status=Status.UP, **seen):
    replica = Replica(
        name, "127.0.0.1", port, version="1.0", host="host-1", status=status, flavor="local"
    )
    return Sighting(service, replica, **{"latency": 0.004, **seen})


def report(utilisation=0.5, qps=3.0):
    return LoadReport(utilisation, qps=qps, eps=1.0, named={"in_flight": 2.0})


def test_jobs_a_second_are_those_started_since_the_look_before():
    before = Look(10.0, "", (sighting("a", started=100), sighting("b", started=5)))
    now = Look(12.0, "", (sighting("a", started=107), sighting("b", port=2, started=3)))
    assert [row.jobs for row in rows_of(now, before)] == [3.5, None]
    assert [row.jobs for row in rows_of(now, None)] == [None, None]


def test_a_replica_that_counts_anew_has_no_negative_rate():
    before = Look(10.0, "", (sighting("a", started=100),))
    assert rows_of(Look(11.0, "", (sighting("a", started=3),)), before)[0].jobs == 0.0


def test_a_row_says_what_its_replica_says():
    seen = sighting("a", report=report(), running=1, slots=2, started=9, status=Status.BUSY)
    row = rows_of(Look(0.0, "", (seen,)), None)[0]
    assert (row.utilisation, row.calls, row.errors, row.in_flight) == (0.5, 3.0, 1.0, 2)
    assert (row.running, row.slots, row.state, row.latency) == (1, 2, "BUSY", 4.0)


def test_an_unbounded_server_has_no_utilisation_and_an_idle_manager_has():
    api = sighting("api", "api", report=report(utilisation=2e-9))
    idle = sighting("idle", report=report(utilisation=0.0), running=0, slots=2, started=0)
    assert [row.utilisation for row in rows_of(Look(0.0, "", (api, idle)), None)] == [None, 0.0]


def test_a_replica_that_does_not_answer_is_silent_and_says_why():
    row = rows_of(Look(0.0, "", (sighting("a", latency=None, fault="unavailable: x"),)), None)[0]
    assert (row.state, row.fault, row.calls, row.latency) == (
        "SILENT",
        "unavailable: x",
        None,
        None,
    )


def test_figures_are_sorted_from_the_largest_and_unknown_ones_come_last():
    seen = (
        sighting("idle", report=report(0.0), slots=2),
        sighting("silent", latency=None),
        sighting("full", report=report(1.0), slots=2),
    )
    rows = rows_of(Look(0.0, "", seen), None)
    order = Order().pressed("u")
    assert [row.replica for row in order.sorted(rows)] == ["full", "idle", "silent"]
    assert [row.replica for row in order.pressed("u").sorted(rows)] == ["idle", "full", "silent"]


def test_names_are_sorted_from_a_and_ties_by_service_and_name():
    rows = rows_of(Look(0.0, "", (sighting("b"), sighting("c", "api"), sighting("a"))), None)
    assert [row.replica for row in Order().sorted(rows)] == ["c", "a", "b"]
    assert [row.replica for row in Order().pressed("r").sorted(rows)] == ["a", "b", "c"]
    assert [row.replica for row in Order().pressed("h").sorted(rows)] == ["c", "a", "b"]


def test_a_key_that_means_nothing_changes_nothing():
    assert Order().pressed("~") == Order()


def test_every_column_can_be_sorted_by():
    rows = rows_of(Look(0.0, "", (sighting("a"), sighting("b", report=report()))), None)
    for key in COLUMNS:
        assert len(Order().pressed(key).sorted(rows)) == 2


def test_ended_jobs_a_second():
    before = Look(10.0, "", jobs={"SUCCEEDED": 5, "RUNNING": 3})
    now = Look(14.0, "", jobs={"SUCCEEDED": 12, "FAILED": 1, "QUEUED": 1})
    assert jobs_of(now, before).ended == 2.0
    assert jobs_of(now, None).ended is None
    assert jobs_of(Look(1.0, ""), now) is None
    assert set(ENDED) == {state_name(each) for each in TERMINAL}


def test_a_document_has_null_for_what_is_not_known():
    look = Look(0.0, "connected", (sighting("a", latency=None, fault="gone"),))
    shown = document(7.0, look, rows_of(look, None), None)
    assert shown["jobs"] is None
    assert shown["replicas"][0]["calls_per_second"] is None
    assert shown["replicas"][0]["fault"] == "gone"


@pytest.fixture
def terminal(monkeypatch):
    """A terminal as standard input; its far end."""
    near, far = os.openpty()

    class Stdin:
        def isatty(self):
            return True

        def fileno(self):
            return far

    monkeypatch.setattr(keyboards.sys, "stdin", Stdin())
    yield near, far
    os.close(near)
    os.close(far)


def test_keys_come_without_enter_and_the_terminal_is_as_before(terminal):
    near, far = terminal
    before = termios.tcgetattr(far)
    with Keyboard() as keyboard:
        os.write(near, b"u")
        assert keyboard.wait(10.0) == "u"
        assert keyboard.wait(0.0) == ""
    assert termios.tcgetattr(far) == before


def test_the_terminal_is_as_before_after_an_interrupt_too(terminal):
    before = termios.tcgetattr(terminal[1])
    with pytest.raises(KeyboardInterrupt), Keyboard():
        raise KeyboardInterrupt
    assert termios.tcgetattr(terminal[1]) == before


def test_a_wait_ends_when_somebody_wakes_it(terminal):
    with Keyboard() as keyboard:
        waker = threading.Timer(0.05, keyboard.wake)
        waker.start()
        assert keyboard.wait(30.0) == ""
        waker.join()
        assert not waker.is_alive()


def test_without_a_terminal_there_are_no_keys(monkeypatch):
    with Path(os.devnull).open() as nowhere:
        monkeypatch.setattr(keyboards.sys, "stdin", nowhere)
        with Keyboard() as keyboard:
            keyboard.wake()
            assert keyboard.wait(30.0) == ""
