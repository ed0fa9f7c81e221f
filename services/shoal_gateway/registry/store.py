"""The way to the database: engine, transactions, and tables that are there.

SQLite is set up for several processes on one file: write-ahead log, foreign keys, a busy timeout,
and ``synchronous=FULL``. With NORMAL a write-ahead log may lose the last commits when the machine
loses power, and a job that a user was told is written down must be. The price is one fsync for each
transaction, which is why batches are one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from shoal_gateway.errors import GatewayError, UnavailableError
from shoal_gateway.registry import schema

# Seconds that a transaction waits for another process's write before it gives up.
BUSY_TIMEOUT = 10.0

# Any number, the same in every process: the advisory lock under which tables are made.
SCHEMA_LOCK = 0x53484F414C

_WRITES = "shoal_writes"


class StoreError(Exception):
    """The store can't be used as it is: another schema, a database that we don't know."""


class Store:
    """A database with the registry's tables in it. Safe for several threads and processes.

    Args:
        url: An SQLAlchemy URL: ``sqlite:////var/lib/shoal/registry.db``.

    Raises:
        StoreError: the file's directory is missing, or its tables are another version's.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(sa.make_url(url))
        self._writer = self._engine.execution_options(**{_WRITES: True})
        self._create()

    def __repr__(self) -> str:
        return f"Store({self._engine.url.render_as_string()!r})"

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the store and writes nothing."""
        with _says_unavailable(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may write; committed at the end, undone when an exception leaves it.

        On SQLite it takes the write lock at once: a transaction that starts as a reader and turns
        writer fails, without waiting, when another wrote in between.
        """
        with _says_unavailable(), self._writer.begin() as connection:
            yield connection

    def _create(self) -> None:
        """Makes what is missing. Several replicas may start on an empty store at once."""
        if self._engine.dialect.name == "sqlite":
            self._use_write_ahead_log()
        with self.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
            # Within the lock: whoever comes second finds everything made.
            schema.metadata.create_all(connection)
            counters = schema.counters
            found = connection.scalar(
                sa.select(counters.c.value).where(counters.c.name == "schema")
            )
            if found is None:
                connection.execute(
                    counters.insert(),
                    [
                        {"name": "schema", "value": schema.SCHEMA_VERSION},
                        {"name": "event", "value": 0},
                    ],
                )
            elif found != schema.SCHEMA_VERSION:
                raise StoreError(
                    f"{self._engine.url.render_as_string()} has version {found} of the tables and"
                    f" this registry knows version {schema.SCHEMA_VERSION}; start the registry that"
                    " made it, or give --store another place"
                )

    def _use_write_ahead_log(self) -> None:
        # The mode stays with the file. To change it takes the file alone, so a replica that starts
        # at the same moment waits its busy timeout; autocommit, because the pragma does nothing
        # within a transaction.
        with _says_unavailable(), self._engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None  # noqa: S101 - a connection that is checked out has one
            mode = raw.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(
                f"{self._engine.url.render_as_string()} can't have a write-ahead log (it is in"
                f" mode {mode!r}); the registry's store must be a file on a local file system"
            )


@contextmanager
def _says_unavailable() -> Iterator[None]:
    """Turns what the database may overcome by itself into an error that callers retry."""
    try:
        yield
    except GatewayError:
        raise
    except DBAPIError as error:
        if isinstance(error, sa.exc.OperationalError):
            raise UnavailableError(f"the registry's store did not answer: {error.orig}") from error
        raise


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    if not url.database or not Path(url.database).parent.is_dir():
        raise StoreError(
            f"{url.render_as_string()} must name a file in a directory that exists:"
            " sqlite:////absolute/path/registry.db"
        )
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT})
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    # The driver would start transactions by itself, and only before some statements.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")


def _on_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
