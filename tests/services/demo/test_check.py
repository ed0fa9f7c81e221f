"""The checker can fail: a good run, and what is said of each way to spoil it."""

from dataclasses import replace

import pytest

from shoal_gateway.demo.check import Entry, Outcome, judge

JOBS = [f"job-{n}" for n in range(5)]
EXPECTED = {job: {"result.json": f"sum-{job}", "forecast.png": f"pic-{job}"} for job in JOBS}


def good_outcomes():
    return {job: Outcome(job, "SUCCEEDED", (f"runner-{job}",), EXPECTED[job]) for job in JOBS}


def good_ledger():
    return [Entry(job, f"runner-{job}") for job in JOBS]


def verdict(outcomes=None, ledger=None, expected=EXPECTED, accepted=None):
    outcomes = good_outcomes() if outcomes is None else outcomes
    ledger = good_ledger() if ledger is None else ledger
    accepted = good_ledger() if accepted is None else accepted
    return judge(JOBS, outcomes.values(), ledger, accepted, expected)


def test_a_good_run_is_good():
    found = verdict()
    assert found.good
    assert found.line() == "5 submitted, 5 succeeded, 0 failed, 0 lost, 0 twice"
    assert (found.attempts_lost, found.executed_more_than_once) == (0, 0)


def test_a_job_that_started_again_elsewhere_is_a_lost_attempt_and_no_fault():
    found = verdict(ledger=[*good_ledger(), Entry("job-2", "runner-on-a-lost-host")])
    assert found.good
    assert (found.attempts_lost, found.executed_more_than_once) == (1, 1)


def test_an_acknowledged_job_that_nobody_knows_is_lost():
    outcomes = good_outcomes()
    del outcomes["job-3"]
    found = verdict(outcomes)
    assert not found.good
    assert (found.lost, found.succeeded) == (1, 4)
    assert "job-3" in found.problems[0]


@pytest.mark.parametrize("state", ["QUEUED", "LEASED", "RUNNING"])
def test_a_job_without_an_end_is_lost(state):
    outcomes = good_outcomes() | {"job-1": Outcome("job-1", state)}
    assert verdict(outcomes).lost == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "DEAD"])
def test_a_job_that_ended_badly_has_failed(state):
    outcomes = good_outcomes() | {"job-1": Outcome("job-1", state)}
    found = verdict(outcomes)
    assert (found.failed, found.good) == (1, False)


def spoil(job, **changes):
    outcomes = good_outcomes()
    outcomes[job] = replace(outcomes[job], **changes)
    return outcomes


def test_two_publications_are_twice():
    found = verdict(spoil("job-0", publications=("runner-job-0", "runner-job-0")))
    assert (found.twice, found.good) == (1, False)


def test_a_second_result_that_only_its_host_knows_of_is_twice():
    found = verdict(accepted=[*good_ledger(), Entry("job-0", "runner-on-another-host")])
    assert (found.twice, found.good) == (1, False)
    assert "runner-on-another-host" in found.problems[0]


def test_the_same_result_noted_again_by_a_successor_or_by_nobody_is_no_fault():
    assert verdict(accepted=[*good_ledger(), *good_ledger()]).good
    assert verdict(accepted=[]).good


def test_a_success_that_the_history_does_not_have_is_a_failure():
    found = verdict(spoil("job-0", publications=()))
    assert (found.failed, found.good) == (1, False)


def test_a_wrong_checksum_is_a_failure():
    found = verdict(spoil("job-4", files={**EXPECTED["job-4"], "result.json": "other"}))
    assert (found.failed, found.succeeded, found.good) == (1, 4, False)
    assert "result.json is other" in found.problems[0]


def test_a_missing_file_is_a_failure():
    assert verdict(spoil("job-4", files={"result.json": "sum-job-4"})).failed == 1


def test_a_file_too_many_is_a_failure():
    assert verdict(spoil("job-4", files={**EXPECTED["job-4"], "extra": "x"})).failed == 1


def test_a_success_that_no_ledger_has_is_a_failure():
    found = verdict(ledger=good_ledger()[1:])
    assert (found.failed, found.good) == (1, False)


def test_a_runner_that_ran_its_job_twice_is_a_failure():
    found = verdict(ledger=[*good_ledger(), good_ledger()[0]])
    assert (found.failed, found.good) == (1, False)


def test_without_a_second_run_nothing_is_believed():
    assert verdict(expected={}).failed == 5
