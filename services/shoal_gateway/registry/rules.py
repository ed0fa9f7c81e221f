"""What becomes of a job: pure decisions, no store.

A decision is taken on a `Standing` (what the store holds now). It is a `Change` (what to write) or
a `Refusal`. Writing it, under the fence that the standing had, is `transitions`' business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

QUEUED = job_pb2.STATE_QUEUED
LEASED = job_pb2.STATE_LEASED
RUNNING = job_pb2.STATE_RUNNING

TERMINAL = frozenset(
    {job_pb2.STATE_SUCCEEDED, job_pb2.STATE_FAILED, job_pb2.STATE_CANCELLED, job_pb2.STATE_DEAD}
)

# Bound on starts when a submit names none: far more hosts than a fleet loses during one job.
DEFAULT_MAX_ATTEMPTS = 100

# Deaths of a job's own supervisor, its manager and host alive, that put the job in quarantine.
TOXIC_LIMIT = 3

_Report = registry_pb2.ReportRequest
# Written only where a runner reports the end of a job that was to be cancelled.
CANCELLED = "cancelled"
OUTCOMES: dict[int, str] = {
    _Report.OUTCOME_SUCCEEDED: "succeeded",
    _Report.OUTCOME_FAILED: "failed",
    _Report.OUTCOME_CANCELLED: CANCELLED,
    _Report.OUTCOME_SUPERVISOR_LOST: "supervisor lost",
    _Report.OUTCOME_ABANDONED: "abandoned",
}
LEASE_LOST = "lease lost"
STILL_RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a decision needs to know of a job."""

    id: str
    state: int
    fence: int
    attempt: int
    attempt_limit: int
    failures: int
    toxic_losses: int
    runner_id: str
    cancelling: bool
    spec: job_pb2.JobSpec
    # The user whose job it is; None: nobody's.
    account: str | None = None

    @property
    def may_start_again(self) -> bool:
        """Whether one more start is allowed."""
        return self.attempt < self.attempt_limit


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, as its runner says."""

    outcome: int
    runner_id: str
    exit_code: int | None = None
    reason: str = ""
    manifest: job_pb2.Manifest | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The next state of a job and what goes with it."""

    state: int
    reason: str
    # Added to the job's fence: whoever held the old one may write no more.
    fence: int = 0
    failures: int = 0
    toxic_losses: int = 0
    exit_code: int | None = None
    # How the attempt that ran has ended; empty when none was running.
    outcome: str = ""
    publish: bool = False
    # With QUEUED: it waits where it did, and not behind all that wait.
    keep_place: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is written."""

    reason: str


def stale(standing: Standing, fence: int) -> Refusal | None:
    """Refuses a claim whose fence is not the job's."""
    if fence == standing.fence:
        return None
    word = "old" if fence < standing.fence else "unknown"
    return Refusal(f"fence {fence} is {word}, the job is at {standing.fence}")


def after_report(standing: Standing, fence: int, ending: Ending) -> Change | Refusal:
    """What an attempt's end makes of its job."""
    refusal = stale(standing, fence)
    if refusal is not None:
        return refusal
    if standing.state != RUNNING:
        return Refusal(f"the job is {state_name(standing.state)}, not RUNNING")
    if ending.runner_id != standing.runner_id:
        return Refusal(f"runner {standing.runner_id} holds the job")
    if standing.cancelling:
        return _cancelled(ending)
    return _BY_OUTCOME[ending.outcome](standing, ending)


def _cancelled(ending: Ending) -> Change:
    # Whatever the runner says: its owner wanted the job's end, and a success that comes too late
    # publishes nothing.
    return Change(
        job_pb2.STATE_CANCELLED,
        ending.reason or "cancelled while it ran",
        exit_code=ending.exit_code,
        outcome=CANCELLED,
    )


def _succeeded(standing: Standing, ending: Ending) -> Change | Refusal:
    manifest = ending.manifest
    if manifest is None:
        return Refusal("a success must bring its manifest")
    if manifest.attempt != standing.attempt:
        return Refusal(
            f"the manifest is of attempt {manifest.attempt}, the job is at {standing.attempt}"
        )
    code = 0 if ending.exit_code is None else ending.exit_code
    return Change(
        job_pb2.STATE_SUCCEEDED,
        ending.reason or f"attempt {standing.attempt} succeeded",
        exit_code=code,
        outcome="succeeded",
        publish=True,
    )


def _failed(standing: Standing, ending: Ending) -> Change:
    said = ending.reason or f"exit code {ending.exit_code}"
    if ending.exit_code not in standing.spec.retryable_exit_codes:
        return Change(job_pb2.STATE_FAILED, said, exit_code=ending.exit_code, outcome="failed")
    bound = standing.spec.max_failures
    if standing.failures >= bound:
        return Change(
            job_pb2.STATE_FAILED,
            f"{said}; {bound} retries of it are used up",
            failures=1,
            exit_code=ending.exit_code,
            outcome="failed",
        )
    return _again(
        standing,
        Change(
            QUEUED,
            f"{said}, which is retryable; queued again",
            failures=1,
            exit_code=ending.exit_code,
            outcome="failed",
        ),
    )


def _supervisor_lost(standing: Standing, ending: Ending) -> Change:
    losses = standing.toxic_losses + 1
    said = ending.reason or "its supervisor died"
    if losses >= TOXIC_LIMIT:
        return Change(
            job_pb2.STATE_DEAD,
            f"{said}; quarantined: {losses} of its supervisors died while their hosts lived",
            toxic_losses=1,
            outcome="supervisor lost",
        )
    return _again(
        standing,
        Change(QUEUED, f"{said}; queued again", toxic_losses=1, outcome="supervisor lost"),
    )


def _abandoned(standing: Standing, ending: Ending) -> Change:
    said = ending.reason or "its host could not run it"
    return _again(standing, Change(QUEUED, f"{said}; queued again", outcome="abandoned"))


def _nobody_asked(standing: Standing, ending: Ending) -> Refusal:  # noqa: ARG001 - one shape for all
    return Refusal("nobody asked for this job to be cancelled")


_BY_OUTCOME: dict[int, Callable[[Standing, Ending], Change | Refusal]] = {
    _Report.OUTCOME_SUCCEEDED: _succeeded,
    _Report.OUTCOME_FAILED: _failed,
    _Report.OUTCOME_CANCELLED: _nobody_asked,
    _Report.OUTCOME_SUPERVISOR_LOST: _supervisor_lost,
    _Report.OUTCOME_ABANDONED: _abandoned,
}


def after_expiry(standing: Standing) -> Change:
    """What a lease that ran out makes of its job. Starts are bounded over lost leases too."""
    if standing.state == LEASED:
        return Change(QUEUED, "the offer expired; queued again", fence=1)
    if standing.cancelling:
        return Change(
            job_pb2.STATE_CANCELLED,
            "cancelled; its runner was lost",
            fence=1,
            outcome=LEASE_LOST,
        )
    return _again(
        standing, Change(QUEUED, "its lease was lost; queued again", fence=1, outcome=LEASE_LOST)
    )


def after_cancel(standing: Standing, reason: str) -> Change | None:
    """What a cancel makes of a job; None when it changes nothing."""
    if standing.state in TERMINAL or standing.cancelling:
        return None
    said = f"cancelled: {reason}" if reason else "cancelled by its owner"
    if standing.state == RUNNING:
        # An intent only; the fence moves, so that a success on its way is discarded.
        return Change(RUNNING, f"{said}; telling its runner", fence=1)
    return Change(job_pb2.STATE_CANCELLED, said, fence=1)


def _again(standing: Standing, change: Change) -> Change:
    """Back into the queue, or DEAD when no start is left."""
    if standing.may_start_again:
        return change
    said = change.reason.removesuffix("; queued again")
    return Change(
        job_pb2.STATE_DEAD,
        f"{said}; all {standing.attempt_limit} starts are used up",
        fence=change.fence,
        failures=change.failures,
        toxic_losses=change.toxic_losses,
        exit_code=change.exit_code,
        outcome=change.outcome,
    )


def state_name(state: int) -> str:
    """How messages for people say a state: "RUNNING" for STATE_RUNNING."""
    return job_pb2.State.Name(job_pb2.State.ValueType(state)).removeprefix("STATE_")
