"""Who leads something writes under a fence, and an older one is refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shoal_gateway.registry.migrations import lives_with

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds a table that older registries neither read nor miss."""
    fences = op.create_table(
        "fences",
        sa.Column("resource", sa.String(64), primary_key=True),
        sa.Column("fence", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(fences, [{"resource": "reaper", "fence": 0}])
    lives_with(op.get_bind(), revision, "0001")
