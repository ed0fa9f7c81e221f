"""The look for passed deadlines costs the same however many jobs wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds an index; older registries live with it."""
    given = sa.text("deadline IS NOT NULL")
    op.create_index(
        "jobs_deadlines", "jobs", ["state", "deadline"], sqlite_where=given, postgresql_where=given
    )
