"""Scripts: what they wait for, and how they end."""

from __future__ import annotations

import threading

import pytest
from kazoo.exceptions import NoNodeError, OperationTimeoutError
from kazoo.handlers.threading import SequentialThreadingHandler

from shoal.recipes import steps
from shoal.recipes.steps import Bell, Steps
from shoal.worker import Worker


@pytest.fixture
def worker():
    made = Worker("test-steps")
    yield made
    made.stop()


@pytest.fixture
def handler():
    made = SequentialThreadingHandler()
    made.start()
    yield made
    made.stop()


def started(worker, script):
    made = Steps(worker, script)
    made.start()
    return made


def test_it_gets_values_and_errors_of_results_in_turn(worker, handler):
    first, second = handler.async_result(), handler.async_result()

    def script():
        value = yield first
        try:
            yield second
        except NoNodeError:
            return value, "no node"

    made = started(worker, script())
    second.set_exception(NoNodeError())
    first.set("a")
    assert made.outcome.result(10) == ("a", "no node")


def test_an_error_that_it_does_not_take_is_its_outcome(worker, handler):
    result = handler.async_result()

    def script():
        yield result

    made = started(worker, script())
    result.set_exception(NoNodeError())
    with pytest.raises(NoNodeError):
        made.outcome.result(10)


def test_a_silent_zookeeper_is_an_error_and_its_late_answer_is_dropped(
    worker, handler, monkeypatch
):
    monkeypatch.setattr(steps, "ANSWER", 0.05)
    silent, asked = handler.async_result(), Bell()

    def script():
        try:
            yield silent
        except OperationTimeoutError as error:
            yield asked
            return str(error)

    made = started(worker, script())
    told = threading.Event()
    worker.call_later(0.1, told.set)
    assert told.wait(10)
    silent.set("late")
    assert not made.outcome.done()
    asked.ring()
    assert made.outcome.result(10) == "no answer within 0.05 s"


def test_a_bell_is_heard_before_and_after_it_rang_and_twice_is_once(worker):
    early, late = Bell(), Bell()
    early.ring()
    reached = threading.Event()

    def script():
        yield early
        reached.set()
        yield late
        yield 0.0
        return "done"

    made = started(worker, script())
    assert reached.wait(10)
    late.ring("an event of kazoo's")
    late.ring()
    early.ring()
    assert made.outcome.result(10) == "done"


def test_one_that_is_stopped_cleans_up_and_hears_no_more(worker):
    bell, ended, waiting = Bell(), [], threading.Event()

    def script():
        try:
            waiting.set()
            yield bell
        finally:
            ended.append(True)

    made = started(worker, script())
    assert waiting.wait(10)
    worker.call_soon(made.stop)
    bell.ring()
    done = threading.Event()
    worker.call_soon(done.set)
    assert done.wait(10)
    assert made.outcome.cancelled()
    assert ended == [True]
