"""Buckets of a second."""

import pytest

from shoal_gateway.dashboard.series import COLUMNS, JobTimes, Series, quantile


def named(row):
    return dict(zip(COLUMNS, row, strict=True))


def test_seconds_without_anything_are_there_too():
    series = Series(100)
    series.at(103).submitted += 2
    rows = [named(each) for each in series.rows()]
    assert [(each["at"], each["submitted"]) for each in rows] == [
        (100, 0),
        (101, 0),
        (102, 0),
        (103, 2),
    ]


def test_old_seconds_go_and_what_is_older_counts_for_the_oldest():
    series = Series(0, kept=10)
    series.at(100)
    assert len(series.rows()) == 10
    series.at(5).submitted += 1
    assert named(series.rows()[0]) | {"at": 91, "submitted": 1} == named(series.rows()[0])


def test_a_clock_that_is_ahead_makes_no_future():
    series = Series(100)
    JobTimes(series, lambda: 100.9).note("j", "SUBMITTED", 10_000.0)
    assert [each[0] for each in series.rows()] == [100]


def test_the_second_that_runs_counts_what_happens_in_it():
    series = Series(100)
    jobs = JobTimes(series, lambda: 102.5)
    jobs.note("a", "SUBMITTED", 102.4)
    jobs.note("b", "SUBMITTED", 101.9)
    assert [named(each)["submitted"] for each in series.rows()] == [0, 1, 1]


def test_jobs_are_counted_where_they_happen_and_timed_from_their_submit():
    series = Series(0)
    series.at(20)
    jobs = JobTimes(series, lambda: 20.0)
    for job, began, ended in (("a", 1.5, 3.0), ("b", 1.0, 3.9), ("c", 2.0, 3.2)):
        jobs.note(job, "SUBMITTED", began)
        jobs.note(job, "SUCCEEDED", ended)
    third = named(series.rows()[3])
    assert third["succeeded"] == 3
    assert third["p50"] == pytest.approx(1.5)
    assert third["p95"] == pytest.approx(2.9)


def test_one_whose_submit_was_not_seen_has_no_duration():
    series = Series(0)
    JobTimes(series, lambda: 0.5).note("a", "SUCCEEDED", 0.5)
    (row,) = series.rows()
    assert (named(row)["succeeded"], named(row)["p50"]) == (1, None)


def test_only_one_that_has_run_is_started_again():
    series = Series(0)
    jobs = JobTimes(series, lambda: 20.0)
    for state in ("SUBMITTED", "QUEUED", "LEASED", "QUEUED", "LEASED", "RUNNING", "QUEUED"):
        jobs.note("a", state, 0.0)
    assert named(series.rows()[0])["requeued"] == 1


@pytest.mark.parametrize("state", ["FAILED", "DEAD", "CANCELLED"])
def test_other_ends(state):
    series = Series(0)
    JobTimes(series, lambda: 20.0).note("a", state, 0.0)
    assert named(series.rows()[0])["failed"] == 1


def test_quantiles():
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.95) == 2.0
