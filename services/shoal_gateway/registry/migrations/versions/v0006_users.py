"""Users, their tokens and what they have used; and whose job is whose."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shoal_gateway.registry.migrations import lives_with

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds a column that may be empty, and tables; older registries live with them.

    Jobs that are there belong to nobody: who submitted them was never asked.
    """
    op.add_column("jobs", sa.Column("account", sa.String(64)))
    known = sa.text("account IS NOT NULL")
    for name, column in (("jobs_account", "ordinal"), ("jobs_in_flight", "state")):
        op.create_index(
            name, "jobs", ["account", column], sqlite_where=known, postgresql_where=known
        )
    op.create_table(
        "users",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("disabled", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("jobs_in_flight", sa.BigInteger),
        sa.Column("submits_per_minute", sa.BigInteger),
        sa.Column("bytes_per_day", sa.BigInteger),
        sa.Column("minute_began", sa.Double, nullable=False),
        sa.Column("minute_submits", sa.BigInteger, nullable=False),
        sa.Column("day_began", sa.Double, nullable=False),
        sa.Column("day_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("user", sa.String(64), sa.ForeignKey("users.name"), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("scopes", sa.String(128), nullable=False),
        sa.Column("label", sa.String(128), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
    )
    op.create_index("tokens_user", "tokens", ["user", "created_at"])
    lives_with(op.get_bind(), revision, "0001")
