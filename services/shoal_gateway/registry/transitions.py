"""Writing a decision down: one conditional update, its event, its attempt, its manifest.

Every change of a job's state goes through `write` (or, for whole batches, `Registry.lease`). The
update names the fence and the state that the decision was taken on. If either has moved on, nothing
is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from shoal_gateway.registry import accounts, journal
from shoal_gateway.registry.clock import store_now
from shoal_gateway.registry.rules import QUEUED, RUNNING, TERMINAL, Change, Ending, Standing
from shoal_gateway.registry.schema import attempts, jobs, manifest_files, manifests
from shoal_protos.gateway.model.v1 import job_pb2


def lock(connection: sa.Connection, job_ids: Iterable[str]) -> None:
    """Locks the jobs of a batch, before anything else is locked, in one order for all batches.

    Each change of a job locks the journal's counter too. A batch that took the counter with its
    first job and waited for its second would wait for a transaction that has the second and waits
    for the counter. Batches that need no counter may lock job by job, in the same order. Where one
    writer at a time has the whole store, this does nothing.
    """
    wanted = set(job_ids)
    if connection.dialect.name == "sqlite" or len(wanted) < 2:
        return
    connection.execute(
        sa.select(jobs.c.id).where(jobs.c.id.in_(wanted)).order_by(jobs.c.id).with_for_update()
    )


def standing(connection: sa.Connection, job_id: str) -> Standing | None:
    """What the store holds of a job, locked until the transaction ends."""
    row = connection.execute(
        sa.select(*_STANDING).where(jobs.c.id == job_id).with_for_update()
    ).one_or_none()
    return None if row is None else standing_of(row)


def standings(connection: sa.Connection, job_ids: Iterable[str]) -> list[Standing]:
    """What the store holds of jobs that are locked already (`lock`), oldest in the queue first."""
    rows = connection.execute(
        sa.select(*_STANDING)
        .where(jobs.c.id.in_(list(job_ids)))
        .order_by(jobs.c.queued_seq)
        .with_for_update()
    )
    return [standing_of(row) for row in rows]


def standing_of(row: sa.Row[Any]) -> Standing:
    """A row of `_STANDING` as a decision wants it."""
    fields = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    fields["spec"] = job_pb2.JobSpec.FromString(fields["spec"])
    return Standing(**fields)


# Made once: for a batch of changes, expressions cost more than the batch.
_NEXT_VERSION = jobs.c.version + 1
_NOW = store_now()
_OF = jobs.update().where(
    jobs.c.id == sa.bindparam("of"),
    jobs.c.fence == sa.bindparam("under"),
    jobs.c.state == sa.bindparam("was", type_=jobs.c.state.type),
)

_STANDING = [
    jobs.c[name]
    for name in (
        "id",
        "state",
        "fence",
        "attempt",
        "attempt_limit",
        "failures",
        "toxic_losses",
        "runner_id",
        "cancelling",
        "spec",
        "account",
    )
]


# What is due, and the order in which it is looked for: that of an index. Without an order, a
# planner may think that any row will do and read all of them to find that none does.
_EXPIRED = (
    sa.and_(jobs.c.state.in_([job_pb2.STATE_LEASED, RUNNING]), jobs.c.lease_until <= store_now()),
    jobs.c.lease_until,
)
_OVERDUE = (sa.and_(jobs.c.state == QUEUED, jobs.c.deadline <= store_now()), jobs.c.deadline)


_ANY_DUE = [
    sa.select(jobs.c.id).where(due).order_by(when).limit(1) for due, when in (_EXPIRED, _OVERDUE)
]


def anything_due(connection: sa.Connection) -> bool:
    """Whether a lease or a deadline has passed; asked with every lease, so it takes no lock."""
    return any(connection.scalar(question) is not None for question in _ANY_DUE)


def expired(connection: sa.Connection, limit: int) -> list[Standing]:
    """Leases that have run out by the store's clock, locked; another sweeper's are left to it."""
    return _due(connection, _EXPIRED, limit)


def overdue(connection: sa.Connection, limit: int) -> list[Standing]:
    """Queued jobs whose deadline for a start has passed, locked."""
    return _due(connection, _OVERDUE, limit)


def _due(
    connection: sa.Connection,
    which: tuple[sa.ColumnElement[bool], sa.ColumnElement[Any]],
    limit: int,
) -> list[Standing]:
    due, when = which
    rows = connection.execute(
        sa.select(*_STANDING)
        .where(due)
        .order_by(when)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [standing_of(row) for row in rows]


def write(
    connection: sa.Connection, before: Standing, change: Change, ending: Ending | None = None
) -> bool:
    """Writes a change if the job still stands as it did.

    Returns:
        Whether it did; False wrote nothing.
    """
    _note_published(connection, [(before, change, ending)])
    seq = journal.reserve(connection)
    done = connection.execute(
        jobs.update()
        .where(
            jobs.c.id == before.id,
            jobs.c.fence == before.fence,
            jobs.c.state == before.state,
            # Says the same once more, so that no decision, however wrong, moves a finished job.
            jobs.c.state.not_in(sorted(TERMINAL)),
        )
        .values(_values(before, change, seq))
    )
    if done.rowcount != 1:
        return False
    journal.append(connection, [(seq, before.id, change.state, change.reason)])
    if change.outcome:
        _end_attempt(connection, before, change)
    if change.publish and ending is not None and ending.manifest is not None:
        publish(connection, before.id, ending.manifest)
    return True


def write_many(
    connection: sa.Connection, changes: Sequence[tuple[Standing, Change, Ending | None]]
) -> None:
    """Writes changes of different jobs that are locked, with a few statements for all.

    Each update names the fence and the state that its decision was taken on, as `write` does.
    """
    if not changes:
        return
    _note_published(connection, changes)
    first = journal.reserve(connection, len(changes))
    updates: dict[tuple[Any, ...], tuple[dict[Any, Any], list[dict[str, Any]]]] = {}
    for at, (before, change, _) in enumerate(changes):
        if before.state in TERMINAL:
            raise AssertionError(f"job {before.id} has ended; no decision may move it")
        values = _values(before, change, first + at)
        # Expressions stand in the statement, and are the same wherever the same columns have one.
        said = {key: value for key, value in values.items() if isinstance(value, sa.ClauseElement)}
        given = {key.name: value for key, value in values.items() if key not in said}
        _, rows = updates.setdefault((*sorted(given), "", *sorted(map(str, said))), (said, []))
        rows.append({"of": before.id, "under": before.fence, "was": before.state, **given})
    for said, rows in updates.values():
        done = connection.execute(_OF.values(said), rows)
        if done.rowcount != len(rows):
            raise AssertionError(f"{len(rows) - done.rowcount} jobs changed under their locks")
    journal.append(
        connection,
        [
            (first + at, before.id, change.state, change.reason)
            for at, (before, change, _) in enumerate(changes)
        ],
    )
    _end_attempts(connection, [(before, change) for before, change, _ in changes if change.outcome])
    publish_many(
        connection,
        [
            (before.id, ending.manifest)
            for before, change, ending in changes
            if change.publish and ending is not None and ending.manifest is not None
        ],
    )


def _note_published(
    connection: sa.Connection, changes: Iterable[tuple[Standing, Change, Ending | None]]
) -> None:
    """Counts what users' jobs publish. Jobs of an open gateway cost nothing here."""
    published = [
        (before.account, sum(file.object.size for file in ending.manifest.files))
        for before, change, ending in changes
        if before.account is not None
        and change.publish
        and ending is not None
        and ending.manifest is not None
    ]
    accounts.note_published(connection, published)


def _values(before: Standing, change: Change, seq: int) -> dict[Any, Any]:
    values: dict[Any, Any] = {
        jobs.c.state: change.state,
        jobs.c.version: _NEXT_VERSION,
        jobs.c.fence: before.fence + change.fence,
        jobs.c.failures: before.failures + change.failures,
        jobs.c.toxic_losses: before.toxic_losses + change.toxic_losses,
        jobs.c.reason: change.reason,
    }
    if change.exit_code is not None:
        values[jobs.c.exit_code] = change.exit_code
    if change.state == RUNNING:
        # It runs on, under the lease that it has: its owner wants it to end.
        values[jobs.c.cancelling] = True
        return values
    values |= {
        jobs.c.lease_owner: "",
        jobs.c.lease_until: None,
        jobs.c.runner_id: "",
        jobs.c.cancelling: False,
    }
    if change.state == QUEUED and not change.keep_place:
        # Behind those that wait already: a job that nobody can take must not block the rest.
        values[jobs.c.queued_seq] = seq
    if change.state in TERMINAL:
        values[jobs.c.ended_at] = _NOW
    return values


def _end_attempt(connection: sa.Connection, before: Standing, change: Change) -> None:
    connection.execute(
        attempts.update()
        .where(attempts.c.job_id == before.id, attempts.c.number == before.attempt)
        .values(
            ended_at=store_now(),
            outcome=change.outcome,
            exit_code=change.exit_code,
            fence=before.fence,
        )
    )


def _end_attempts(connection: sa.Connection, changes: Sequence[tuple[Standing, Change]]) -> None:
    if not changes:
        return
    connection.execute(
        attempts.update()
        .where(
            attempts.c.job_id == sa.bindparam("of"), attempts.c.number == sa.bindparam("numbered")
        )
        .values(ended_at=store_now()),
        [
            {
                "of": before.id,
                "numbered": before.attempt,
                "outcome": change.outcome,
                "exit_code": change.exit_code,
                "fence": before.fence,
            }
            for before, change in changes
        ],
    )


def publish(connection: sa.Connection, job_id: str, manifest: job_pb2.Manifest) -> None:
    """Writes a manifest in the transaction that ends its job.

    A second manifest for a job violates the primary key and undoes the transaction.
    """
    publish_many(connection, [(job_id, manifest)])


def publish_many(
    connection: sa.Connection, manifests_of: Sequence[tuple[str, job_pb2.Manifest]]
) -> None:
    """Writes manifests, as `publish` does one."""
    if not manifests_of:
        return
    connection.execute(
        manifests.insert().values(published_at=store_now()),
        [
            {"job_id": job_id, "attempt": manifest.attempt, "runner_id": manifest.runner_id}
            for job_id, manifest in manifests_of
        ],
    )
    files = [
        {
            "job_id": job_id,
            "name": file.name,
            "key": file.object.key,
            "sha256": file.object.sha256,
            "size": file.object.size,
        }
        for job_id, manifest in manifests_of
        for file in manifest.files
    ]
    if files:
        connection.execute(manifest_files.insert(), files)
