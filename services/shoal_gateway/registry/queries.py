"""Reading: records as the protobuf messages that callers get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from shoal_gateway.convert import timestamp
from shoal_gateway.registry import journal
from shoal_gateway.registry.schema import attempts, events, jobs, manifest_files, manifests
from shoal_protos.gateway.model.v1 import job_pb2

# In a job's message by another name, in another form, or not at all.
_COPIED = (
    "id",
    "owner",
    "idempotency_key",
    "state",
    "version",
    "attempt",
    "failures",
    "toxic_losses",
    "fence",
    "lease_owner",
    "cancelling",
    "reason",
)


def job(connection: sa.Connection, job_id: str) -> job_pb2.Job | None:
    """A job with its attempts and manifest."""
    row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        return None
    found = _job(row)
    found.attempts.extend(
        _attempt(each)
        for each in connection.execute(
            sa.select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
        )
    )
    manifest = _manifest(connection, job_id)
    if manifest is not None:
        found.manifest.CopyFrom(manifest)
    return found


def bare(connection: sa.Connection, job_ids: Sequence[str]) -> list[job_pb2.Job]:
    """Jobs that were never started: they have no attempts and no manifest."""
    return [_job(row) for row in connection.execute(sa.select(jobs).where(jobs.c.id.in_(job_ids)))]


def history(connection: sa.Connection, job_id: str) -> list[job_pb2.Event]:
    """A job's events, oldest first."""
    rows = connection.execute(
        sa.select(events, jobs.c.account)
        .join_from(events, jobs)
        .where(events.c.job_id == job_id)
        .order_by(events.c.seq)
    )
    return [_event(row, row.account or "") for row in rows]


def page(
    connection: sa.Connection,
    owner: str,
    states: Sequence[int],
    size: int,
    before: int | None,
    account: str = "",
) -> tuple[list[job_pb2.Job], int | None]:
    """Jobs, newest first, and where the next page starts; None on the last."""
    query = sa.select(jobs).order_by(jobs.c.ordinal.desc()).limit(size + 1)
    if account:
        query = query.where(jobs.c.account == account)
    if owner:
        query = query.where(jobs.c.owner == owner)
    if states:
        query = query.where(jobs.c.state.in_(states))
    if before is not None:
        query = query.where(jobs.c.ordinal < before)
    rows = connection.execute(query).all()
    more = len(rows) > size
    shown = rows[:size]
    return [_job(row) for row in shown], shown[-1].ordinal if more else None


def changes(connection: sa.Connection, after: int, limit: int) -> tuple[list[job_pb2.Event], int]:
    """Events after a seq, and the cursor behind them; after -1: none, and the present's cursor."""
    if after < 0:
        return [], journal.latest(connection)
    rows = connection.execute(
        sa.select(events, jobs.c.account)
        .join_from(events, jobs)
        .where(events.c.seq > after)
        .order_by(events.c.seq)
        .limit(limit)
    )
    found = [_event(row, row.account or "") for row in rows]
    return found, found[-1].seq if found else after


def counts(connection: sa.Connection, owner: str) -> dict[int, int]:
    """Number of jobs by state."""
    query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
    if owner:
        query = query.where(jobs.c.owner == owner)
    return {row[0]: row[1] for row in connection.execute(query)}


def _job(row: sa.Row[Any]) -> job_pb2.Job:
    fields = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
    return job_pb2.Job(
        **{name: fields[name] for name in _COPIED},
        spec=job_pb2.JobSpec.FromString(row.spec),
        signed_by=row.signed_by or "",
        account=row.account or "",
        trace_context=row.trace_context or "",
        lease_until=timestamp(row.lease_until),
        exit_code=row.exit_code,
        submitted_at=timestamp(row.submitted_at),
        started_at=timestamp(row.started_at),
        ended_at=timestamp(row.ended_at),
    )


def _attempt(row: sa.Row[Any]) -> job_pb2.Attempt:
    return job_pb2.Attempt(
        number=row.number,
        runner_id=row.runner_id,
        manager_id=row.manager_id,
        host=row.host,
        fence=row.fence,
        started_at=timestamp(row.started_at),
        ended_at=timestamp(row.ended_at),
        outcome=row.outcome,
        exit_code=row.exit_code,
        manager_version=row.manager_version or "",
    )


def _event(row: sa.Row[Any], account: str) -> job_pb2.Event:
    return job_pb2.Event(
        seq=row.seq,
        job_id=row.job_id,
        at=timestamp(row.at),
        state=row.state,
        message=row.message,
        account=account,
    )


def _manifest(connection: sa.Connection, job_id: str) -> job_pb2.Manifest | None:
    row = connection.execute(sa.select(manifests).where(manifests.c.job_id == job_id)).one_or_none()
    if row is None:
        return None
    files = connection.execute(
        sa.select(manifest_files)
        .where(manifest_files.c.job_id == job_id)
        .order_by(manifest_files.c.name)
    )
    return job_pb2.Manifest(
        attempt=row.attempt,
        runner_id=row.runner_id,
        files=[
            job_pb2.FileRef(
                name=file.name,
                object=job_pb2.ObjectRef(key=file.key, sha256=file.sha256, size=file.size),
            )
            for file in files
        ],
    )
