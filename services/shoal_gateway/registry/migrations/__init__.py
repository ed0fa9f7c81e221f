"""The tables' history: each change of `schema` is one file in ``versions``, run by alembic.

A registry brings its store to its own version when it starts (`migrate`), in one transaction and
under the store's lock. While a new version is rolled out, replicas of the old one work on the
changed tables; so a change comes in two releases if the old code can't live with it: first what is
new is added, later what is unused is removed.

To add one, copy the last file, give it the next number, and name the number before it in
``down_revision``; a test compares the result with `schema`, on SQLite and on PostgreSQL. There is
no way down: a store is brought back from its backup.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from shoal_gateway.registry.outages import StoreError

# Registries from before there were migrations wrote this number beside their tables.
UNNUMBERED = 1
ADOPTED_AS = "0001"


def configuration(connection: sa.Connection) -> Config:
    """Alembic's, for work within a connection's transaction."""
    made = Config()
    # In its file format, which this has to pass through, a per cent sign begins a reference.
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def migrate(connection: sa.Connection) -> tuple[str | None, str]:
    """Brings the tables to this version's, within the connection's transaction.

    Returns:
        The version before, None for a store without tables, and the one after.

    Raises:
        StoreError: the tables are another version's, later than this one.
    """
    settings = configuration(connection)
    known = ScriptDirectory.from_config(settings)
    latest = known.get_current_head()
    assert latest is not None  # noqa: S101 - versions holds at least the first
    before = MigrationContext.configure(connection).get_current_revision()
    if before == latest:
        return before, latest
    if before is not None and before not in {each.revision for each in known.walk_revisions()}:
        raise StoreError(
            f"has version {before} of the tables, and this registry knows none later than {latest};"
            " start the registry that made it, or a later one, or give --store another place"
        )
    if before is None and sa.inspect(connection).has_table("counters"):
        before = _adopted(connection)
        command.stamp(settings, before)
    command.upgrade(settings, "head")
    return before, latest


def _adopted(connection: sa.Connection) -> str:
    """The version of tables from before there were migrations."""
    found = connection.scalar(sa.text("SELECT value FROM counters WHERE name = 'schema'"))
    if found != UNNUMBERED:
        raise StoreError(
            f"has version {found} of the tables, from before they were numbered, and this registry"
            f" can go on from version {UNNUMBERED} only; give --store another place"
        )
    return ADOPTED_AS
