"""Jobs say which trace they belong to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shoal_gateway.registry.migrations import lives_with

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds a column that may be empty; older registries live with it."""
    op.add_column("jobs", sa.Column("trace_context", sa.String(64)))
    lives_with(op.get_bind(), revision, "0001")
