"""Judges a run from what was published and what the runners wrote down. Pure: no I/O here.

The store's own word is not enough, since its primary key would hide a second result. So
publications are counted from the append-only history and from the hosts' ledgers, where each
manager notes what was accepted from it; executions from the ledgers too (lost hosts' as well); and
every checksum is compared with a second run of the same job outside the gateway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a ledger: the start of a job's process, or that its result was accepted."""

    job_id: str
    runner_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job as the gateway tells of it.

    Attributes:
        job_id: The job.
        state: Its state's name.
        publications: Runner of each publication in its history.
        files: Checksum of each published file, as fetched.
    """

    job_id: str
    state: str
    publications: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run has shown.

    Attributes:
        submitted: Jobs that the gateway acknowledged.
        succeeded: Jobs that SUCCEEDED with the right files.
        failed: Jobs that ended otherwise, or whose files are not what a second run makes.
        lost: Acknowledged jobs that have no end.
        twice: Jobs that published more than one result.
        executed_more_than_once: Jobs whose process was started more than once (allowed: a lost
            host's jobs start again).
        attempts_lost: Starts that did not lead to the published result.
        problems: One sentence for each thing that is wrong.
    """

    submitted: int
    succeeded: int
    failed: int
    lost: int
    twice: int
    executed_more_than_once: int
    attempts_lost: int
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether every job has succeeded exactly once."""
        return self.succeeded == self.submitted and not (
            self.failed or self.lost or self.twice or self.problems
        )

    def line(self) -> str:
        """The last line of a run."""
        return (
            f"{self.submitted} submitted, {self.succeeded} succeeded, {self.failed} failed, "
            f"{self.lost} lost, {self.twice} twice"
        )

    def document(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def judge(
    submitted: Sequence[str],
    outcomes: Iterable[Outcome],
    starts: Sequence[Entry],
    accepted: Sequence[Entry],
    expected: Mapping[str, Mapping[str, str]],
) -> Verdict:
    """Judges a run.

    Args:
        submitted: Ids of acknowledged jobs.
        outcomes: What the gateway says of jobs.
        starts: Starts in all ledgers.
        accepted: Accepted results in all ledgers.
        expected: For each job the checksums of a second run's files.
    """
    found = {each.job_id: each for each in outcomes}
    started = Counter(each.job_id for each in starts)
    runs = Counter((each.job_id, each.runner_id) for each in starts)
    # A manager that dies after the answer notes nothing, and its successor notes it again: so these
    # can prove a second result, not the lack of one.
    publishers: dict[str, set[str]] = {}
    for each in accepted:
        publishers.setdefault(each.job_id, set()).add(each.runner_id)
    problems: list[str] = []
    succeeded = failed = lost = twice = attempts_lost = 0
    for job_id in submitted:
        outcome = found.get(job_id)
        if outcome is None or outcome.state not in ("SUCCEEDED", "FAILED", "CANCELLED", "DEAD"):
            lost += 1
            state = "is not known" if outcome is None else f"is still {outcome.state}"
            problems.append(f"job {job_id} was acknowledged and {state}")
            continue
        if outcome.state != "SUCCEEDED":
            failed += 1
            problems.append(f"job {job_id} is {outcome.state}")
            continue
        wrong = _wrong(outcome, started[job_id], runs, expected.get(job_id, {}))
        problems += wrong
        runners = publishers.get(job_id, set()) | set(outcome.publications)
        results = max(len(outcome.publications), len(runners))
        if results > 1:
            twice += 1
            problems.append(
                f"job {job_id} published {results} results, of {', '.join(sorted(runners))}"
            )
        if wrong:
            failed += 1
        else:
            succeeded += 1
        attempts_lost += max(0, started[job_id] - 1)
    return Verdict(
        submitted=len(submitted),
        succeeded=succeeded,
        failed=failed,
        lost=lost,
        twice=twice,
        executed_more_than_once=sum(started[job_id] > 1 for job_id in submitted),
        attempts_lost=attempts_lost,
        problems=tuple(problems),
    )


def _wrong(
    outcome: Outcome,
    starts: int,
    runs: Counter[tuple[str, str]],
    expected: Mapping[str, str],
) -> list[str]:
    """What is wrong with a job that is said to have succeeded."""
    job_id = outcome.job_id
    problems = []
    if not outcome.publications:
        problems.append(f"job {job_id} SUCCEEDED without a publication in its history")
    if not starts:
        problems.append(f"job {job_id} SUCCEEDED and no ledger has a start of it")
    problems += [
        f"job {job_id}: runner {runner} published, and the ledgers have "
        f"{runs[(job_id, runner)]} starts of it"
        for runner in set(outcome.publications)
        if runs[(job_id, runner)] != 1
    ]
    if not expected:
        problems.append(f"job {job_id} has no second run to compare with")
    for name, checksum in expected.items():
        if outcome.files.get(name) != checksum:
            problems.append(
                f"job {job_id}: {name} is {outcome.files.get(name, 'missing')}; a second run "
                f"makes {checksum}"
            )
    problems += [
        f"job {job_id} published {name}, which a second run does not make"
        for name in outcome.files.keys() - expected.keys()
    ]
    return problems
