"""A store that several processes share, and that refuses who has been deposed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


class StaleFenceError(Exception):
    """Somebody with a newer fence has written: who has this one is not the writer any more."""


class Store:
    """Facts by name, in SQLite. A connection for each call: threads share none.

    Args:
        path: Of the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as store:
            store.execute("PRAGMA journal_mode = WAL")
            store.executescript(
                "CREATE TABLE IF NOT EXISTS facts"
                " (name TEXT PRIMARY KEY, value TEXT, fence INTEGER);"
                "CREATE TABLE IF NOT EXISTS fence (one INTEGER PRIMARY KEY, seen INTEGER);"
                "INSERT OR IGNORE INTO fence VALUES (1, 0);"
            )

    def get(self, name: str) -> str | None:
        """The value of a fact; None where there is none."""
        with closing(self._connect()) as store:
            found = store.execute("SELECT value FROM facts WHERE name = ?", [name]).fetchone()
        return None if found is None else str(found[0])

    def claim(self, fence: int) -> None:
        """Notes a new writer: from now on nothing is taken from those before it.

        Raises:
            StaleFenceError: a newer fence was seen.
        """
        with closing(self._connect()) as store, store:
            store.execute("BEGIN IMMEDIATE")
            _note(store, fence)

    def put(self, name: str, value: str, fence: int) -> None:
        """Writes a fact under a fence, in one transaction with the look at it.

        Raises:
            StaleFenceError: a newer fence was seen; nothing was written.
        """
        with closing(self._connect()) as store, store:
            store.execute("BEGIN IMMEDIATE")
            _note(store, fence)
            store.execute(
                "INSERT INTO facts VALUES (?, ?, ?) ON CONFLICT (name)"
                " DO UPDATE SET value = excluded.value, fence = excluded.fence",
                [name, value, fence],
            )

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30.0, isolation_level=None)


def _note(store: sqlite3.Connection, fence: int) -> None:
    noted = store.execute("UPDATE fence SET seen = ? WHERE seen <= ?", [fence, fence])
    if noted.rowcount != 1:
        raise StaleFenceError(f"fence {fence} is stale: another writer was promoted")
