"""The thread that everything is handed over to."""

import logging
import threading

from shoal.worker import Worker


def test_tasks_run_in_the_order_of_their_times_on_one_thread():
    worker = Worker("test")
    seen, done = [], threading.Event()
    gate = threading.Event()
    worker.call_soon(gate.wait)
    worker.call_later(0.05, lambda: (seen.append("late"), done.set()))
    worker.call_soon(lambda: seen.append(threading.current_thread().name))
    worker.call_soon(lambda: seen.append(worker.inside))
    gate.set()
    assert done.wait(30)
    assert seen == ["test", True, "late"]
    assert not worker.inside
    worker.stop()


def test_a_task_that_fails_is_logged_and_the_next_one_runs(caplog):
    worker = Worker("test")
    done = threading.Event()
    with caplog.at_level(logging.ERROR):
        worker.call_soon(lambda: 1 / 0)
        worker.call_soon(done.set)
        assert done.wait(30)
    assert "ZeroDivisionError" in caplog.text
    worker.stop()


def test_after_stop_nothing_runs_and_a_task_may_stop_its_own_thread():
    worker = Worker("test")
    stopped = threading.Event()
    ran = []

    def stop():
        worker.stop()
        stopped.set()

    worker.call_later(0.0, stop)
    worker.call_later(0.1, lambda: ran.append(1))
    assert stopped.wait(30)
    worker.call_soon(lambda: ran.append(2))
    worker._thread.join(30)
    assert not worker._thread.is_alive()
    assert ran == []


def test_without_a_task_there_is_no_thread():
    worker = Worker("idle")
    worker.stop()
    assert "idle" not in [thread.name for thread in threading.enumerate()]
