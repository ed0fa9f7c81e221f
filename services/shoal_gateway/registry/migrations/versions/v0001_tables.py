"""Jobs, attempts, events and manifests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_STATES = ", ".join(
    f"'{state}'"
    for state in (
        *("SUBMITTED", "QUEUED", "LEASED", "RUNNING"),
        *("SUCCEEDED", "FAILED", "CANCELLED", "DEAD"),
    )
)


def upgrade() -> None:
    """Makes all tables."""
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    # "schema" is for registries from before there were migrations: they look for it, and live with
    # these tables.
    op.bulk_insert(counters, [{"name": "schema", "value": 1}, {"name": "event", "value": 0}])
    _make_jobs()
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("runner_id", sa.String(36), nullable=False, unique=True),
        sa.Column("manager_id", sa.String(128), nullable=False),
        sa.Column("host", sa.String(128), nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("exit_code", sa.Integer),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("events_job", "events", ["job_id", "seq"])
    _make_manifests()


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("ordinal", sa.BigInteger, nullable=False, unique=True),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("idempotency_key", sa.String(128), nullable=False),
        sa.Column("fingerprint", sa.String(128), nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("flavor", sa.String(128), nullable=False),
        sa.Column("deadline", sa.Double),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("attempt_limit", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("toxic_losses", sa.Integer, nullable=False),
        sa.Column("queued_seq", sa.BigInteger, nullable=False),
        sa.Column("lease_owner", sa.String(128), nullable=False),
        sa.Column("lease_until", sa.Double),
        sa.Column("runner_id", sa.String(36), nullable=False),
        sa.Column("cancelling", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("submitted_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.UniqueConstraint("owner", "idempotency_key", name="jobs_key"),
        sa.CheckConstraint(f"state IN ({_STATES})", name="jobs_state"),
        sa.CheckConstraint("attempt <= attempt_limit", name="jobs_attempts"),
    )
    op.create_index("jobs_queue", "jobs", ["state", "flavor", "queued_seq"])
    op.create_index("jobs_leases", "jobs", ["state", "lease_until"])
    op.create_index("jobs_owner", "jobs", ["owner", "ordinal"])


def _make_manifests() -> None:
    op.create_table(
        "manifests",
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("runner_id", sa.String(36), sa.ForeignKey("attempts.runner_id"), nullable=False),
        sa.Column("published_at", sa.Double, nullable=False),
    )
    op.create_table(
        "manifest_files",
        sa.Column("job_id", sa.String(36), sa.ForeignKey("manifests.job_id"), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
    )
