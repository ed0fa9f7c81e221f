"""Jobs say which key their submit was signed with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shoal_gateway.registry.migrations import lives_with

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds a column that may be empty; older registries live with it."""
    op.add_column("jobs", sa.Column("signed_by", sa.String(256)))
    lives_with(op.get_bind(), revision, "0001")
