"""The way to the database: transactions, and tables that are there and are ours."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from shoal_gateway.errors import UnavailableError
from shoal_gateway.registry import engines, migrations
from shoal_gateway.registry.outages import StoreError, says_unavailable, why

__all__ = ["Store", "StoreError"]

logger = logging.getLogger(__name__)

# Any number, the same in every process: the advisory lock under which tables are made.
SCHEMA_LOCK = 0x53484F414C

# Seconds between two looks for a database that is not there yet.
_AGAIN = 0.25

# Seconds between two tries to have SQLite's file alone.
_BUSY_AGAIN = 0.02


class Store:
    """A database with the registry's tables in it. Safe for several threads and processes.

    Tables are made, and changed to what this version needs, when it is opened; several replicas may
    do so at once.

    Args:
        url: An SQLAlchemy URL: ``sqlite:////var/lib/shoal/registry.db`` or
            ``postgresql://shoal@db.example/shoal``.
        wait: Seconds to wait for a database that does not answer yet.
        sleep: Waits so many seconds.
        clock: Seconds, from any origin.

    Raises:
        StoreError: it did not answer in time, or can't be used: the message says why.
    """

    def __init__(
        self,
        url: str,
        *,
        wait: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError as error:
            raise StoreError(
                f"the store's URL can't be read ({error}); it is like"
                " sqlite:////absolute/path/registry.db or postgresql://user@host:5432/database"
            ) from error
        self._engine = engines.make_engine(parsed)
        self._reader = engines.reader(self._engine)
        self._writer = engines.writer(self._engine)
        try:
            self._open(clock() + wait, sleep, clock)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"Store({self._engine.url.render_as_string()!r})"

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the store and writes nothing.

        Raises:
            UnavailableError: the database does not answer; it may in a moment.
        """
        with says_unavailable(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may write; committed at the end, undone when an exception leaves it.

        On SQLite it takes the write lock at once: a transaction that starts as a reader and turns
        writer fails, without waiting, when another wrote in between.

        Raises:
            UnavailableError: the database does not answer, or has undone the transaction for
                another's sake; or its answer to the commit was lost, and the message says so.
        """
        with says_unavailable() as stage, self._writer.begin() as connection:
            yield connection
            stage.committing = True

    def _open(
        self, until: float, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        """Prepares the tables; waits for the database if there is time."""
        told = False
        while True:
            try:
                return self._prepare(sleep, clock)
            except UnavailableError as error:
                if clock() >= until:
                    raise StoreError(
                        f"{self._engine.url.render_as_string()} can't be reached; see that it runs"
                        f" and that the URL is right ({why(error)})"
                    ) from error
                if not told:
                    logger.warning("waits for %r: %s", self, why(error))
                    told = True
            sleep(_AGAIN)

    def _prepare(self, sleep: Callable[[float], None], clock: Callable[[], float]) -> None:
        """Brings the tables to this version. Several replicas may start on an empty store."""
        if self._engine.dialect.name == "sqlite":
            self._use_write_ahead_log(clock() + engines.BUSY_TIMEOUT, sleep, clock)
        with self.write() as connection:
            if connection.dialect.name == "postgresql":
                # A change of large tables may take its time; so may the wait for who makes it.
                connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
            # Within the lock: whoever comes second finds everything made.
            try:
                before, after = migrations.migrate(connection)
            except StoreError as error:
                raise StoreError(f"{self._engine.url.render_as_string()} {error}") from error
        if before != after:
            logger.info("%r: tables brought from %s to %s", self, before or "none", after)

    def _use_write_ahead_log(
        self, until: float, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        # The mode stays with the file. To change it takes the file alone, and SQLite does not
        # wait its busy timeout for that where two want it at once: each has the lock that the
        # other waits for. Autocommit, because the pragma does nothing within a transaction.
        with says_unavailable(), self._engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None  # noqa: S101 - a connection that is checked out has one
            while True:
                try:
                    mode = raw.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                    break
                except sqlite3.OperationalError as error:
                    if not _busy(error):
                        raise
                    if clock() >= until:
                        raise UnavailableError("the registry's store did not answer") from error
                sleep(_BUSY_AGAIN)
        if mode != "wal":
            raise StoreError(
                f"{self._engine.url.render_as_string()} can't have a write-ahead log (it is in"
                f" mode {mode!r}); the registry's store must be a file on a local file system"
            )


def _busy(error: sqlite3.OperationalError) -> bool:
    # The low byte is the code; what is above says more of it, like SQLITE_BUSY_RECOVERY.
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
