"""The tables. Portable between SQLite and PostgreSQL; times are seconds since 1970 (`clock`).

A change here needs a file in ``migrations/versions``, for stores that exist.

What must never happen is forbidden here where a schema can: one job per owner and key, at most one
manifest per job, one attempt per number, no record of a job that does not exist.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from shoal_protos.gateway.model.v1 import job_pb2

PREFIX = "STATE_"


class StateType(TypeDecorator[int]):
    """A `job_pb2.State` by its name, so that a person can read the table."""

    impl = String(16)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Number to name."""
        return None if value is None else job_pb2.State.Name(value).removeprefix(PREFIX)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Name to number."""
        return None if value is None else job_pb2.State.Value(PREFIX + value)


_STATES = ", ".join(f"'{name.removeprefix(PREFIX)}'" for name in job_pb2.State.keys()[1:])

metadata = MetaData()

# "event": the last event's seq. A row that is updated in the transaction that uses the number makes
# the order of seq the order of commit, on PostgreSQL too, where a sequence would let a follower see
# 8 before 7 and miss 7. "schema": see the first migration.
counters = Table(
    "counters",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# The highest fence under which somebody has written, by what is led; see `fences`.
fences = Table(
    "fences",
    metadata,
    Column("resource", String(64), primary_key=True),
    Column("fence", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    # Order of submission: the seq of its first event. What a page token names.
    Column("ordinal", BigInteger, nullable=False, unique=True),
    Column("owner", String(128), nullable=False),
    Column("idempotency_key", String(128), nullable=False),
    Column("fingerprint", String(128), nullable=False),
    # A JobSpec as it was accepted; the columns after it are what queries need of it.
    Column("spec", LargeBinary, nullable=False),
    Column("flavor", String(128), nullable=False),
    Column("deadline", Double),
    Column("state", StateType, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    # `attempt` at which no further start is allowed; a replay moves it on.
    Column("attempt_limit", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("toxic_losses", Integer, nullable=False),
    # Order in the queue: the seq of the event that queued it last.
    Column("queued_seq", BigInteger, nullable=False),
    Column("lease_owner", String(128), nullable=False),
    Column("lease_until", Double),
    # The runner that holds it; empty unless RUNNING.
    Column("runner_id", String(36), nullable=False),
    Column("cancelling", Boolean(create_constraint=False), nullable=False),
    Column("exit_code", Integer),
    Column("reason", Text, nullable=False),
    Column("submitted_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    # The key whose signature was verified, "owner/key id". Nothing: it was not signed, or a
    # registry without this column wrote the job down.
    Column("signed_by", String(256)),
    # The user whose job it is. Nothing: nobody's; `owner` is what was claimed. No foreign key: a
    # user that is removed some day leaves jobs behind.
    Column("account", String(64)),
    # W3C's traceparent of its submit. Nothing: it is in no trace.
    Column("trace_context", String(64)),
    UniqueConstraint("owner", "idempotency_key", name="jobs_key"),
    CheckConstraint(f"state IN ({_STATES})", name="jobs_state"),
    CheckConstraint("attempt <= attempt_limit", name="jobs_attempts"),
    Index("jobs_queue", "state", "flavor", "queued_seq"),
    Index("jobs_leases", "state", "lease_until"),
    # Few jobs have one, and each lease looks for those that have passed.
    Index(
        "jobs_deadlines",
        "state",
        "deadline",
        sqlite_where=text("deadline IS NOT NULL"),
        postgresql_where=text("deadline IS NOT NULL"),
    ),
    Index("jobs_owner", "owner", "ordinal"),
    # A user's list; and what of theirs is in flight. Jobs of an open gateway are in neither.
    Index(
        "jobs_account",
        "account",
        "ordinal",
        sqlite_where=text("account IS NOT NULL"),
        postgresql_where=text("account IS NOT NULL"),
    ),
    Index(
        "jobs_in_flight",
        "account",
        "state",
        sqlite_where=text("account IS NOT NULL"),
        postgresql_where=text("account IS NOT NULL"),
    ),
)

# Who may submit where the api asks for users; own bounds, and what is used of them. A submit locks
# its user's row, so that several replicas can't exceed a bound together.
users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("disabled", Boolean(create_constraint=False), nullable=False),
    # Nothing: the common bound holds.
    Column("jobs_in_flight", BigInteger),
    Column("submits_per_minute", BigInteger),
    Column("bytes_per_day", BigInteger),
    # The minute and the day that are counted, and what was counted in them.
    Column("minute_began", Double, nullable=False),
    Column("minute_submits", BigInteger, nullable=False),
    Column("day_began", Double, nullable=False),
    Column("day_bytes", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    # 16 hex digits, part of what its bearer sends.
    Column("id", String(16), primary_key=True),
    Column("user", ForeignKey("users.name"), nullable=False),
    # SHA-256 of the secret, which has 32 random bytes: there is nothing to guess, so nothing slow
    # is needed.
    Column("digest", LargeBinary, nullable=False),
    # Names of scopes with spaces between.
    Column("scopes", String(128), nullable=False),
    Column("label", String(128), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("revoked_at", Double),
    Index("tokens_user", "user", "created_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("runner_id", String(36), nullable=False, unique=True),
    Column("manager_id", String(128), nullable=False),
    Column("host", String(128), nullable=False),
    # The fence that it began under; once it has ended, the one that its end was written under.
    Column("fence", BigInteger, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", String(32), nullable=False),
    Column("exit_code", Integer),
    # Nothing where a registry without this column wrote the attempt down.
    Column("manager_version", String(128)),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("at", Double, nullable=False),
    Column("state", StateType, nullable=False),
    Column("message", Text, nullable=False),
    Index("events_job", "job_id", "seq"),
)

manifests = Table(
    "manifests",
    metadata,
    # The primary key is the rule: one manifest per job.
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("runner_id", ForeignKey("attempts.runner_id"), nullable=False),
    Column("published_at", Double, nullable=False),
)

manifest_files = Table(
    "manifest_files",
    metadata,
    Column("job_id", ForeignKey("manifests.job_id"), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("key", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
)
