"""Attempts say which version of the app manager began them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shoal_gateway.registry.migrations import lives_with

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds a column that may be empty; older registries live with it."""
    op.add_column("attempts", sa.Column("manager_version", sa.String(128)))
    lives_with(op.get_bind(), revision, "0001")
