"""Jobs and their ends, whichever is heard of first."""

from shoal_gateway.load.tracking import Tracker


def test_a_job_that_ends_after_its_acknowledgement():
    tracker = Tracker()
    tracker.submitted(0, 100.0)
    assert tracker.acknowledged(0, "a") is None
    assert tracker.open == 1

    ended = tracker.ended("a", "SUCCEEDED", 1, 102.5, 5.0)

    assert ended is not None
    assert (ended.number, ended.latency, ended.failure(3.0)) == (0, 2.5, "")
    assert tracker.open == 0


def test_a_job_that_ends_before_its_acknowledgement():
    tracker = Tracker()
    tracker.submitted(0, 100.0)
    assert tracker.ended("a", "SUCCEEDED", 1, 101.0, 5.0) is None
    assert tracker.open == 1

    ended = tracker.acknowledged(0, "a")

    assert ended is not None
    # Heard of then, and not only when the acknowledgement came.
    assert ended.latency == 1.0


def test_an_end_counts_once_and_others_jobs_never():
    tracker = Tracker()
    tracker.submitted(0, 1.0)
    tracker.acknowledged(0, "a")

    assert tracker.ended("other", "FAILED", 1, 2.0, 5.0) is None
    assert tracker.ended("a", "SUCCEEDED", 1, 2.0, 5.0) is not None
    assert tracker.ended("a", "SUCCEEDED", 1, 2.0, 5.0) is None


def test_what_was_rejected_is_not_waited_for():
    tracker = Tracker()
    tracker.submitted(0, 1.0)
    tracker.rejected(0)
    assert tracker.open == 0


def test_a_success_that_comes_too_late_is_none():
    tracker = Tracker()
    for number, state in enumerate(("SUCCEEDED", "DEAD")):
        tracker.submitted(number, 0.0)
        tracker.acknowledged(number, str(number))
        ended = tracker.ended(str(number), state, 1, 31.0, 5.0)
        assert ended is not None
        expected = "later than 30 s" if state == "SUCCEEDED" else "ended DEAD"
        assert ended.failure(30.0) == expected
