"""Claims to a job: a scheduler's offer, a runner's start, its renewals and its report.

Functions of a transaction; `logic` opens it, and locks a batch's jobs first, so that two batches on
PostgreSQL can't wait for each other's rows.

Whatever is repeated because its answer was lost (with a connection, or with the store in the middle
of a commit) is answered as it was the first time, if it was carried out then: see `begin` and
`reported`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from shoal_gateway.errors import NotFoundError, PreconditionError
from shoal_gateway.registry import journal, rules, transitions
from shoal_gateway.registry.clock import store_now
from shoal_gateway.registry.rules import LEASED, RUNNING, Change, Ending, Refusal
from shoal_gateway.registry.schema import attempts, jobs
from shoal_gateway.registry.submission import missing
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

_Verdict = registry_pb2.RenewResponse

# Of the specs of one lease: half of what gRPC takes in a message unless told otherwise.
MAX_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Start:
    """A runner that wants to begin an attempt."""

    job_id: str
    fence: int
    attempt: int
    runner_id: str
    manager_id: str
    host: str
    manager_version: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """A runner's claim to the job that it runs."""

    job_id: str
    fence: int
    runner_id: str


@dataclass(frozen=True, slots=True)
class Report:
    """A claim, and how the attempt ended."""

    job_id: str
    fence: int
    ending: Ending


def lease(
    connection: sa.Connection,
    waiting: sa.ColumnElement[bool],
    scheduler: str,
    limit: int,
    seconds: float,
) -> list[registry_pb2.Offer]:
    """Moves up to ``limit`` of the jobs that are ``waiting`` to a scheduler, oldest first."""
    chosen = connection.execute(
        sa.select(jobs.c.id, jobs.c.spec, jobs.c.trace_context)
        .where(waiting, sa.or_(jobs.c.deadline.is_(None), jobs.c.deadline > store_now()))
        .order_by(jobs.c.queued_seq)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    chosen = chosen[: _how_many_fit(len(row.spec) for row in chosen)]
    if not chosen:
        return []
    reason = f"leased to scheduler {scheduler}"
    leased = {
        row.id: row
        for row in connection.execute(
            jobs.update()
            # Locked, so still queued; to say that would lead SQLite to walk through all that are.
            .where(jobs.c.id.in_([row.id for row in chosen]))
            .values(
                state=LEASED,
                version=jobs.c.version + 1,
                fence=jobs.c.fence + 1,
                lease_owner=scheduler,
                lease_until=store_now() + seconds,
                reason=reason,
            )
            .returning(jobs.c.id, jobs.c.fence, jobs.c.attempt)
        )
    }
    first = journal.reserve(connection, len(leased))
    offers = [
        registry_pb2.Offer(
            job_id=row.id,
            attempt=leased[row.id].attempt + 1,
            fence=leased[row.id].fence,
            spec=job_pb2.JobSpec.FromString(row.spec),
            trace_context=row.trace_context or "",
        )
        for row in chosen
        if row.id in leased
    ]
    journal.append(
        connection,
        [(first + at, offer.job_id, LEASED, reason) for at, offer in enumerate(offers)],
    )
    return offers


def _how_many_fit(sizes: Iterable[int]) -> int:
    """How many of the first specs fit one message, at least one; the rest waits on."""
    count = total = 0
    for size in sizes:
        total += size
        if count and total > MAX_BYTES:
            break
        count += 1
    return count


def begin(connection: sa.Connection, start: Start, seconds: float) -> int:
    """LEASED → RUNNING for one runner; the fence that it holds the job under."""
    done = connection.execute(
        jobs.update()
        .where(
            jobs.c.id == start.job_id,
            jobs.c.fence == start.fence,
            jobs.c.state == LEASED,
            jobs.c.attempt == start.attempt - 1,
            sa.or_(jobs.c.deadline.is_(None), jobs.c.deadline > store_now()),
        )
        .values(
            state=RUNNING,
            version=jobs.c.version + 1,
            fence=jobs.c.fence + 1,
            attempt=start.attempt,
            runner_id=start.runner_id,
            lease_owner=start.manager_id,
            lease_until=store_now() + seconds,
            started_at=store_now(),
            reason=f"attempt {start.attempt} runs on {start.host or start.manager_id}",
        )
        .returning(jobs.c.fence, jobs.c.reason)
    ).one_or_none()
    if done is None:
        return _begun_before(connection, start)
    seq = journal.reserve(connection)
    journal.append(connection, [(seq, start.job_id, RUNNING, done.reason)])
    connection.execute(
        attempts.insert().values(
            job_id=start.job_id,
            number=start.attempt,
            runner_id=start.runner_id,
            manager_id=start.manager_id,
            manager_version=start.manager_version,
            host=start.host,
            fence=done.fence,
            started_at=store_now(),
            outcome=rules.STILL_RUNNING,
        )
    )
    return int(done.fence)


def begin_many(
    connection: sa.Connection, starts: Sequence[Start], seconds: float
) -> list[int | str]:
    """LEASED → RUNNING for many, whose jobs are locked; for each its fence, or why not."""
    rows = {
        row.id: row
        for row in connection.execute(
            sa.select(
                jobs.c.id,
                jobs.c.fence,
                jobs.c.state,
                jobs.c.attempt,
                sa.or_(jobs.c.deadline.is_(None), jobs.c.deadline > store_now()).label("in_time"),
            ).where(jobs.c.id.in_({each.job_id for each in starts}))
        )
    }
    good: dict[str, Start] = {}
    for start in starts:
        row = rows.get(start.job_id)
        offered = (start.fence, LEASED, start.attempt - 1)
        if row is not None and row.in_time and (row.fence, row.state, row.attempt) == offered:
            good.setdefault(start.job_id, start)
    _begin_all(connection, list(good.values()), seconds)
    return [
        start.fence + 1 if good.get(start.job_id) is start else _fence_or_why(connection, start)
        for start in starts
    ]


def _begin_all(connection: sa.Connection, starts: Sequence[Start], seconds: float) -> None:
    if not starts:
        return
    reasons = [f"attempt {each.attempt} runs on {each.host or each.manager_id}" for each in starts]
    done = connection.execute(
        jobs.update()
        .where(
            jobs.c.id == sa.bindparam("of"),
            jobs.c.fence == sa.bindparam("under"),
            jobs.c.state == LEASED,
        )
        .values(
            state=RUNNING,
            version=jobs.c.version + 1,
            fence=jobs.c.fence + 1,
            lease_until=store_now() + seconds,
            started_at=store_now(),
        ),
        [
            {
                "of": each.job_id,
                "under": each.fence,
                "attempt": each.attempt,
                "runner_id": each.runner_id,
                "lease_owner": each.manager_id,
                "reason": reason,
            }
            for each, reason in zip(starts, reasons, strict=True)
        ],
    )
    if done.rowcount != len(starts):
        raise AssertionError(f"{len(starts) - done.rowcount} jobs changed under their rows' locks")
    first = journal.reserve(connection, len(starts))
    journal.append(
        connection,
        [
            (first + at, each.job_id, RUNNING, reason)
            for at, (each, reason) in enumerate(zip(starts, reasons, strict=True))
        ],
    )
    connection.execute(
        attempts.insert().values(started_at=store_now(), outcome=rules.STILL_RUNNING),
        [
            {
                "job_id": each.job_id,
                "number": each.attempt,
                "runner_id": each.runner_id,
                "manager_id": each.manager_id,
                "host": each.host,
                "manager_version": each.manager_version,
                "fence": each.fence + 1,
            }
            for each in starts
        ],
    )


def _fence_or_why(connection: sa.Connection, start: Start) -> int | str:
    try:
        return _begun_before(connection, start)
    except (NotFoundError, PreconditionError) as error:
        return str(error)


def _begun_before(connection: sa.Connection, start: Start) -> int:
    """The fence of a start whose answer was lost; else says who has the job."""
    job = connection.execute(sa.select(jobs).where(jobs.c.id == start.job_id)).one_or_none()
    if job is None:
        raise missing(start.job_id)
    if job.state == RUNNING and job.runner_id == start.runner_id:
        fence = connection.scalar(
            sa.select(attempts.c.fence).where(
                attempts.c.job_id == start.job_id, attempts.c.number == start.attempt
            )
        )
        # Only from the claim that led to it: the offer's fence is one below the runner's.
        if fence == start.fence + 1:
            return start.fence + 1
    raise PreconditionError(
        f"job {start.job_id} is not to be begun under fence {start.fence} as attempt"
        f" {start.attempt}: it is {rules.state_name(job.state)} at fence {job.fence}, attempt"
        f" {job.attempt}; drop it"
    )


def renewed(
    connection: sa.Connection, holding: Holding, seconds: float
) -> registry_pb2.RenewResponse.Item:
    """Moves the end of one lease on, or says why not."""
    held = connection.execute(
        jobs.update()
        .where(
            jobs.c.id == holding.job_id,
            jobs.c.state == RUNNING,
            jobs.c.runner_id == holding.runner_id,
            # The fence moved when it was cancelled, and its runner is here to learn that.
            sa.or_(jobs.c.fence == holding.fence, jobs.c.cancelling),
            jobs.c.fence >= holding.fence,
        )
        .values(lease_until=store_now() + seconds, version=jobs.c.version + 1)
        .returning(jobs.c.fence, jobs.c.cancelling)
    ).one_or_none()
    if held is None:
        return _Verdict.Item(job_id=holding.job_id, verdict=_Verdict.VERDICT_LOST)
    if held.cancelling:
        return _Verdict.Item(
            job_id=holding.job_id, verdict=_Verdict.VERDICT_CANCEL, fence=held.fence
        )
    return _Verdict.Item(job_id=holding.job_id, verdict=_Verdict.VERDICT_HELD, fence=held.fence)


def reported(connection: sa.Connection, report: Report) -> registry_pb2.ReportResponse.Item:
    """Writes one attempt's end down, or says why not."""
    before = transitions.standing(connection, report.job_id)
    if before is None:
        return registry_pb2.ReportResponse.Item(
            job_id=report.job_id, reason=f"there is no job {report.job_id}"
        )
    decision = rules.after_report(before, report.fence, report.ending)
    if isinstance(decision, Refusal):
        # A repeated report whose first answer was lost is no news, and is not refused.
        repeated = _ended_so(connection, report)
        return registry_pb2.ReportResponse.Item(
            job_id=report.job_id,
            accepted=repeated,
            reason="" if repeated else decision.reason,
            state=job_pb2.State.ValueType(before.state),
        )
    if not transitions.write(connection, before, decision, report.ending):
        raise AssertionError(f"job {report.job_id} changed under its row's lock")
    return registry_pb2.ReportResponse.Item(
        job_id=report.job_id, accepted=True, state=job_pb2.State.ValueType(decision.state)
    )


def reported_many(
    connection: sa.Connection, reports: Sequence[Report]
) -> list[registry_pb2.ReportResponse.Item]:
    """Writes ends down of attempts whose jobs are locked; for each what `reported` would say.

    What each job's first report leads to is decided on what stands now and written together. What
    is refused, or said twice in the batch, is looked at by itself afterwards.
    """
    standings = {
        before.id: before
        for before in transitions.standings(connection, {each.job_id for each in reports})
    }
    together: dict[str, tuple[Report, Change]] = {}
    for report in reports:
        before = standings.get(report.job_id)
        if before is None or report.job_id in together:
            continue
        decision = rules.after_report(before, report.fence, report.ending)
        if not isinstance(decision, Refusal):
            together[report.job_id] = (report, decision)
    transitions.write_many(
        connection,
        [
            (standings[job_id], change, report.ending)
            for job_id, (report, change) in together.items()
        ],
    )
    return [
        registry_pb2.ReportResponse.Item(
            job_id=report.job_id,
            accepted=True,
            state=job_pb2.State.ValueType(together[report.job_id][1].state),
        )
        if together.get(report.job_id, (None,))[0] is report
        else reported(connection, report)
        for report in reports
    ]


def _ended_so(connection: sa.Connection, report: Report) -> bool:
    outcome = connection.scalar(
        sa.select(attempts.c.outcome).where(
            attempts.c.job_id == report.job_id,
            attempts.c.runner_id == report.ending.runner_id,
            attempts.c.fence == report.fence,
            attempts.c.ended_at.is_not(None),
        )
    )
    # That a cancelled job's runner is told "cancelled" whatever it says is as true the second time.
    return outcome in (rules.OUTCOMES[report.ending.outcome], rules.CANCELLED)
