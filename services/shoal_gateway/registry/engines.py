"""Engines for the databases that we know, set up so that what is acknowledged is written down.

SQLite is set up for several processes on one file: write-ahead log, foreign keys, a busy timeout,
and ``synchronous=FULL``. With NORMAL a write-ahead log may lose the last commits when the machine
loses power, and a job that a user was told is written down must be. The price is one fsync for each
transaction, which is why batches are one transaction.

PostgreSQL is durable by its own settings. What it needs of us are bounds: on connecting, on waiting
for locks, on statements, and on how long a replica that was cut off in the middle of a transaction
may keep others waiting.
"""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from shoal_gateway.registry.outages import StoreError

logger = logging.getLogger(__name__)

# Seconds that a transaction waits for another process's write before it gives up.
BUSY_TIMEOUT = 10.0

# Connections of one replica: its readers, its writer, and one to spare.
POOL = 8

_WRITES = "shoal_writes"

# Parameters of a connection to PostgreSQL; those in the URL win. A peer that is gone without a
# word is found out by keepalives and by what it leaves unacknowledged.
_POSTGRES = {
    "application_name": "shoal-registry",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

# Milliseconds, kept by the server: a statement, a wait for a lock, and a replica that says nothing
# within a transaction (it is cut off, or stopped; its locks must not outlast the leases).
_SESSION = {
    "statement_timeout": 30_000,
    "lock_timeout": int(BUSY_TIMEOUT * 1000),
    "idle_in_transaction_session_timeout": 10_000,
}


def make_engine(url: sa.URL) -> sa.Engine:
    """An engine whose `reader` and `writer` options open the right kind of transaction.

    Raises:
        StoreError: the URL names what can't be a store.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    if url.get_backend_name() == "postgresql":
        return _postgresql(url)
    raise StoreError(
        f"{url.render_as_string()} is of a kind that the registry does not know; it knows"
        " sqlite:////absolute/path/registry.db and postgresql://user@host:5432/database"
    )


def reader(engine: sa.Engine) -> sa.Engine:
    """For transactions that see one state of the store."""
    if engine.dialect.name == "sqlite":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def writer(engine: sa.Engine) -> sa.Engine:
    """For transactions that write."""
    return engine.execution_options(**{_WRITES: True})


def _postgresql(url: sa.URL) -> sa.Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    parameters = {
        **_POSTGRES,
        "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
    }
    try:
        return sa.create_engine(
            url,
            # Whatever the role's default is: `claims` counts on it.
            isolation_level="READ COMMITTED",
            # Asks a connection whether it lives before it is used: after an outage none does.
            pool_pre_ping=True,
            pool_size=POOL,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT,
            connect_args={key: parameters[key] for key in parameters.keys() - url.query.keys()},
        )
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{url.render_as_string()} needs the driver {error.name}, which is not installed:"
            " pip install 'shoal[postgres]'"
        ) from error


def _sqlite(url: sa.URL) -> sa.Engine:
    if not url.database or not Path(url.database).parent.is_dir():
        raise StoreError(
            f"{url.render_as_string()} must name a file in a directory that exists:"
            " sqlite:////absolute/path/registry.db"
        )
    _close_to_others(Path(url.database))
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT})
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    return engine


def _close_to_others(path: Path) -> None:
    """Who can read it sees everybody's jobs. SQLite gives the files that it adds the same mode."""
    path.touch(mode=0o600)
    for each in (path, *(path.with_name(path.name + more) for more in ("-wal", "-shm"))):
        try:
            mode = stat.S_IMODE(each.stat().st_mode)
            if mode & 0o007:
                each.chmod(mode & 0o770)
        except FileNotFoundError:
            continue
        except OSError as error:
            logger.warning("everybody on this host may read or write the store: %s", error)


def _on_connect(connection: Any, _record: Any) -> None:
    # The driver would start transactions by itself, and only before some statements.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")


def _on_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
