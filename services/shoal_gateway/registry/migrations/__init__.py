"""The tables' history: each change of `schema` is one file in ``versions``, run by alembic.

A registry brings its store to its own version when it starts (`migrate`), in one transaction and
under the store's lock. While a new version is rolled out, replicas of the old one work on the
changed tables; so a change comes in two releases if the old code can't live with it: first what is
new is added, later what is unused is removed.

Where an upgrade is undone, a registry finds tables that are newer than itself. It starts on them if
they say that they can be lived with (`lives_with`, called by the migration); else it is refused.

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
        StoreError: the tables are a later version's, and it did not promise that this registry can
            live with them.
    """
    settings = configuration(connection)
    known = ScriptDirectory.from_config(settings)
    latest = known.get_current_head()
    assert latest is not None  # noqa: S101 - versions holds at least the first
    before = MigrationContext.configure(connection).get_current_revision()
    if before == latest:
        return before, latest
    if before is not None and before not in {each.revision for each in known.walk_revisions()}:
        oldest = connection.scalar(_OLDEST, {"name": _promise(before)})
        if oldest is not None and oldest <= int(latest):
            return before, before
        raise StoreError(
            f"has version {before} of the tables, and this registry knows none later than {latest};"
            " start the registry that made it, or a later one, or give --store another place"
        )
    if before is None and sa.inspect(connection).has_table("counters"):
        before = _adopted(connection)
        command.stamp(settings, before)
    command.upgrade(settings, "head")
    return before, latest


def lives_with(connection: sa.Connection, version: str, oldest: str) -> None:
    """A migration's promise that registries which know none later than ``oldest`` can go on.

    Args:
        connection: Of the migration.
        version: The migration's own.
        oldest: Of the tables that those registries were written for.
    """
    row = {"name": _promise(version), "value": int(oldest)}
    connection.execute(sa.text("INSERT INTO counters (name, value) VALUES (:name, :value)"), row)


_OLDEST = sa.text("SELECT value FROM counters WHERE name = :name")


def _promise(version: str) -> str:
    return f"oldest@{version}"


def _adopted(connection: sa.Connection) -> str:
    """The version of tables from before there were migrations."""
    found = connection.scalar(sa.text("SELECT value FROM counters WHERE name = 'schema'"))
    if found != UNNUMBERED:
        raise StoreError(
            f"has version {found} of the tables, from before they were numbered, and this registry"
            f" can go on from version {UNNUMBERED} only; give --store another place"
        )
    return ADOPTED_AS
