"""How a job enters the store, and how a dead one enters it again.

Functions of a transaction; `logic` opens it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from shoal_gateway.convert import unix
from shoal_gateway.errors import (
    AlreadyExistsError,
    NotFoundError,
    PreconditionError,
    QuotaError,
)
from shoal_gateway.registry import accounts, journal, queries, rules
from shoal_gateway.registry.clock import store_now
from shoal_gateway.registry.quotas import Quotas
from shoal_gateway.registry.rules import QUEUED, Standing
from shoal_gateway.registry.schema import jobs
from shoal_protos.gateway.model.v1 import job_pb2


@dataclass(frozen=True, slots=True)
class Creation:
    """A job that is to be written down."""

    owner: str
    key: str
    spec: job_pb2.JobSpec
    fingerprint: str = ""
    signed_by: str = ""
    # The user whose job it is to be; empty: nobody's.
    account: str = ""
    # W3C's traceparent of its submit; empty: it is in no trace.
    trace_context: str = ""

    @property
    def stands_for(self) -> str:
        """What its key stands for."""
        return self.fingerprint or fingerprint_of(self.spec)


@dataclass(frozen=True, slots=True)
class Known:
    """A job as far as an answer to its submit goes; without an id: why there is none."""

    id: str
    fingerprint: str
    state: int
    created: bool = False
    error: str = ""
    job: job_pb2.Job | None = None
    account: str = ""
    # The quota that the error is about.
    quota: str = ""


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


def same_request(connection: sa.Connection, creation: Creation) -> job_pb2.Job | None:
    """The job that an owner's key made before; None when the key is new.

    Raises:
        AlreadyExistsError: the key stands for another request.
    """
    found = known(connection, [creation]).get((creation.owner, creation.key))
    if found is None:
        return None
    said = answered(creation, found)
    if said.error:
        raise AlreadyExistsError(said.error)
    return existing(connection, said.id)


def _another(owner: str, key: str, job_id: str) -> str:
    return (
        f"idempotency_key: {owner!r} has used {key!r} for another request, which is job"
        f" {job_id}; a new request needs a new key"
    )


def known(connection: sa.Connection, creations: Iterable[Creation]) -> dict[tuple[str, str], Known]:
    """Those of many keys that were used before, by owner and key."""
    keys: dict[str, list[str]] = {}
    for each in creations:
        keys.setdefault(each.owner, []).append(each.key)
    found = {}
    for owner, wanted in keys.items():
        rows = connection.execute(
            sa.select(
                jobs.c.idempotency_key,
                jobs.c.id,
                jobs.c.fingerprint,
                jobs.c.state,
                jobs.c.account,
            ).where(jobs.c.owner == owner, jobs.c.idempotency_key.in_(wanted))
        )
        for row in rows:
            found[owner, row.idempotency_key] = Known(
                row.id, row.fingerprint, row.state, account=row.account or ""
            )
    return found


def answered(creation: Creation, found: Known) -> Known:
    """What is said of a key that was used before: its job, or that it stands for another."""
    if creation.account and found.account != creation.account:
        # Submitted under this name when nobody had to show who they are. It is not theirs to see.
        said = (
            f"idempotency_key: {creation.key!r} was used in the name of {creation.owner!r} before"
            " this gateway asked for users; a new request needs a new key"
        )
        return Known("", "", 0, error=said)
    if found.fingerprint == creation.stands_for:
        return found
    return Known("", "", 0, error=_another(creation.owner, creation.key, found.id))


def insert(connection: sa.Connection, creations: Sequence[tuple[str, Creation]]) -> None:
    """Writes new jobs down, queued, each under its id."""
    if not creations:
        return
    first = journal.reserve(connection, 2 * len(creations))
    rows, entries = [], []
    for at, (job_id, creation) in enumerate(creations):
        spec, seq = creation.spec, first + 2 * at
        rows.append(
            {
                "id": job_id,
                "ordinal": seq,
                "owner": creation.owner,
                "idempotency_key": creation.key,
                "fingerprint": creation.stands_for,
                "spec": _accepted(spec),
                "flavor": spec.flavor,
                "deadline": unix(spec.deadline) if spec.HasField("deadline") else None,
                "attempt_limit": spec.max_attempts or rules.DEFAULT_MAX_ATTEMPTS,
                "queued_seq": seq + 1,
                "signed_by": creation.signed_by or None,
                "account": creation.account or None,
                "trace_context": creation.trace_context or None,
            }
        )
        entries.append((seq, job_id, job_pb2.STATE_SUBMITTED, _told(creation)))
        entries.append((seq + 1, job_id, QUEUED, "waits for a scheduler"))
    connection.execute(
        jobs.insert().values(
            state=QUEUED,
            version=1,
            fence=0,
            attempt=0,
            failures=0,
            toxic_losses=0,
            lease_owner="",
            runner_id="",
            cancelling=False,
            reason="waits for a scheduler",
            submitted_at=store_now(),
        ),
        rows,
    )
    journal.append(connection, entries)


def _told(creation: Creation) -> str:
    by = f"submitted by {creation.owner}"
    return f"{by}, signed with {creation.signed_by}" if creation.signed_by else by


def _accepted(spec: job_pb2.JobSpec) -> bytes:
    if not spec.max_attempts:
        whole = job_pb2.JobSpec()
        whole.CopyFrom(spec)
        whole.max_attempts = rules.DEFAULT_MAX_ATTEMPTS
        spec = whole
    return spec.SerializeToString(deterministic=True)


def replay(connection: sa.Connection, before: Standing, common: Quotas) -> None:
    """Puts a DEAD job back into the queue; to its user's quotas it is one more.

    Attempts keep their numbers, so that no directory and no record is used twice; what is fresh is
    the number of starts that are left. A deadline has lost its meaning.

    Args:
        connection: The transaction.
        before: The job, locked.
        common: Bounds of users who have none of their own.

    Raises:
        PreconditionError: it is not DEAD.
        QuotaError: a quota of its user is used up.
    """
    if before.state != job_pb2.STATE_DEAD:
        raise PreconditionError(
            f"job {before.id} is {rules.state_name(before.state)}; only a DEAD job is replayed"
        )
    if before.account:
        allowed = accounts.Allowances(connection, common, [before.account])
        if exceeded := allowed.take(before.account):
            raise QuotaError(exceeded.quota, exceeded.said)
        allowed.note()
    seq = journal.reserve(connection)
    connection.execute(
        jobs.update()
        .where(jobs.c.id == before.id)
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
    journal.append(connection, [(seq, before.id, QUEUED, "replayed on request")])
