"""What the upgrade experiment makes of its history and of its upgrades."""

from shoal_gateway.experiments.upgrade import BROKEN, FULL, Roll, by_version, shortcomings
from shoal_gateway.fleet.rollout import Outcome
from shoal_gateway.fleet.upgrade import Result

GOOD = Roll(0.1, "api")
BAD = Roll(0.2, "api", BROKEN)
DONE = Result(Outcome.DONE, "second", ("api-1.2",), ())
BACK = Result(Outcome.ROLLED_BACK, BROKEN, (), ("api-1",), "api-1.2 failed")


def test_a_success_counts_for_the_version_of_the_last_attempt():
    def record(job_id, *versions):
        attempts = [{"manager_version": version} for version in versions]
        return {"kind": "record", "job_id": job_id, "attempts": attempts}

    def told(job_id, at, state="SUCCEEDED"):
        return {"kind": "terminal", "job_id": job_id, "state": state, "monotonic": at}

    lines = [
        {"kind": "begin", "monotonic": 10.0},
        told("a", 12.0), told("b", 11.0), told("c", 13.0), told("d", 14.0, "FAILED"),
        record("a", "1", "2"), record("b", "2"), record("c", "1"), record("d", "1"),
    ]  # fmt: skip
    assert by_version(lines) == {"1": [3.0], "2": [1.0, 2.0]}


def test_nothing_is_wrong_when_the_good_is_done_and_the_broken_is_rolled_back():
    assert shortcomings([(BAD, BACK), (GOOD, DONE)], [BAD, GOOD], ["1", "second"]) == []


def test_whatever_is_not_as_it_must_be_is_said():
    left = Result(Outcome.DONE, "second", ("api-1.2",), ("api-2",))
    stays = Result(Outcome.ROLLED_BACK, BROKEN, ("api-1.2",), ())
    for results, versions, words in (
        ([(BAD, BACK)], ["1", "second"], "never begun"),
        ([(BAD, DONE), (GOOD, DONE)], ["1", "second"], "done, and not rolled back"),
        ([(BAD, BACK), (GOOD, BACK)], ["1", "second"], "rolled back, and not done"),
        ([(BAD, BACK), (GOOD, left)], ["1", "second"], "api-2 were not upgraded"),
        ([(BAD, stays), (GOOD, DONE)], ["1", "second"], "api-1.2 were not rolled back"),
        ([(BAD, BACK), (GOOD, DONE)], ["second"], "two must have"),
        ([(BAD, BACK), (GOOD, DONE)], ["1", BROKEN, "second"], "two must have"),
    ):
        found = shortcomings(results, [BAD, GOOD], versions)
        assert any(words in problem for problem in found), (words, found)


def test_a_full_run_upgrades_every_service_and_tries_a_broken_version_first():
    assert FULL[0].version == BROKEN
    assert {roll.service for roll in FULL[1:]} == {"registry", "api", "scheduler", "appmanager"}
    assert [roll.at for roll in FULL] == sorted(roll.at for roll in FULL)
