"""How a job enters the store, and how a dead one enters it again.

Functions of a transaction; `logic` opens it.
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from shoal_gateway.convert import unix
from shoal_gateway.errors import AlreadyExistsError, NotFoundError, PreconditionError
from shoal_gateway.registry import journal, queries, rules
from shoal_gateway.registry.clock import store_now
from shoal_gateway.registry.rules import QUEUED, Standing
from shoal_gateway.registry.schema import jobs
from shoal_protos.gateway.model.v1 import job_pb2


def existing(connection: sa.Connection, job_id: str) -> job_pb2.Job:
    """A job that must be there."""
    found = queries.job(connection, job_id)
    if found is None:
        raise missing(job_id)
    return found


def missing(job_id: str) -> NotFoundError:
    """The error for a job that is not there."""
    return NotFoundError(f"there is no job {job_id}")


def fingerprint_of(spec: job_pb2.JobSpec) -> str:
    """What a key stands for when its caller does not say."""
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()


def same_request(
    connection: sa.Connection, owner: str, key: str, fingerprint: str
) -> job_pb2.Job | None:
    """The job that an owner's key made before; None when the key is new.

    Raises:
        AlreadyExistsError: the key stands for another request.
    """
    row = connection.execute(
        sa.select(jobs.c.id, jobs.c.fingerprint).where(
            jobs.c.owner == owner, jobs.c.idempotency_key == key
        )
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise AlreadyExistsError(
            f"idempotency_key: {owner!r} has used {key!r} for another request, which is job"
            f" {row.id}; a new request needs a new key"
        )
    return existing(connection, row.id)


def insert(
    connection: sa.Connection,
    owner: str,
    key: str,
    spec: job_pb2.JobSpec,
    fingerprint: str,
    job_id: str,
) -> None:
    """Writes a new job down, queued."""
    first = journal.reserve(connection, 2)
    connection.execute(
        jobs.insert().values(
            id=job_id,
            ordinal=first,
            owner=owner,
            idempotency_key=key,
            fingerprint=fingerprint,
            spec=spec.SerializeToString(deterministic=True),
            flavor=spec.flavor,
            deadline=unix(spec.deadline) if spec.HasField("deadline") else None,
            state=QUEUED,
            version=1,
            fence=0,
            attempt=0,
            attempt_limit=spec.max_attempts,
            failures=0,
            toxic_losses=0,
            queued_seq=first + 1,
            lease_owner="",
            runner_id="",
            cancelling=False,
            reason="waits for a scheduler",
            submitted_at=store_now(),
        )
    )
    journal.append(
        connection,
        [
            (first, job_id, job_pb2.STATE_SUBMITTED, f"submitted by {owner}"),
            (first + 1, job_id, QUEUED, "waits for a scheduler"),
        ],
    )


def replay(connection: sa.Connection, before: Standing) -> None:
    """Puts a DEAD job back into the queue.

    Attempts keep their numbers, so that no directory and no record is used twice; what is fresh is
    the number of starts that are left. A deadline has lost its meaning.
    """
    seq = journal.reserve(connection)
    done = connection.execute(
        jobs.update()
        .where(jobs.c.id == before.id, jobs.c.state == job_pb2.STATE_DEAD)
        .values(
            state=QUEUED,
            version=jobs.c.version + 1,
            fence=jobs.c.fence + 1,
            attempt_limit=before.attempt + before.spec.max_attempts,
            failures=0,
            toxic_losses=0,
            queued_seq=seq,
            exit_code=None,
            ended_at=None,
            deadline=None,
            reason="replayed on request",
        )
    )
    if done.rowcount != 1:
        raise PreconditionError(
            f"job {before.id} is {rules.state_name(before.state)}; only a DEAD job is replayed"
        )
    journal.append(connection, [(seq, before.id, QUEUED, "replayed on request")])
