"""What a database's errors mean to us: gone for now, or not to be used as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import exc

from shoal_gateway.errors import UnavailableError

# Classes of SQLSTATE, and single ones, that a database overcomes by itself or that another try
# does: connection, resources, rollback (serialisation, deadlock), operator's intervention (stops,
# starts, cancels, timeouts), system; read-only for now (it is being replaced), left idle, locked.
_PASSING_CLASSES = frozenset({"08", "53", "40", "57", "58"})
_PASSING = frozenset({"25006", "25P03", "55P03"})


class StoreError(Exception):
    """The store can't be used as it is: absent, of another version, or none that we know."""


@dataclass(slots=True)
class Stage:
    """How far a transaction has come."""

    committing: bool = False


@contextmanager
def says_unavailable() -> Iterator[Stage]:
    """Turns what the database may overcome by itself into an error that callers retry.

    Its words may be of hosts, files and accounts, and go to users: the driver's are its cause.

    The block says on the stage when it commits: an error after that leaves open whether the
    transaction is written down. Then it is for the caller to ask once more, and every operation
    that callers repeat answers a repetition as it answered the first.
    """
    stage = Stage()
    try:
        yield stage
    except exc.TimeoutError as error:
        raise UnavailableError("the registry's store is busy; try again") from error
    except exc.DBAPIError as error:
        if not passing(error):
            raise
        known = getattr(error.orig, "sqlstate", None) and not error.connection_invalidated
        if stage.committing and not known:
            raise UnavailableError(
                "the registry's store did not say whether it has written this down; if it can be"
                " repeated, do"
            ) from error
        raise UnavailableError("the registry's store did not answer; try again") from error


def why(error: UnavailableError) -> str:
    """The driver's words, for those who look after the store."""
    cause = error.__cause__
    return " ".join(str(getattr(cause, "orig", None) or cause or error).split())


def passing(error: exc.DBAPIError) -> bool:
    """Whether the same transaction may go through in a moment."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state[:2] in _PASSING_CLASSES or state in _PASSING
    if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        return False  # the statement is wrong, or what it names is not there
    # Without a state it did not come from a PostgreSQL that could still speak: the connection is
    # lost or could not be made, or it is SQLite, whose file is locked.
    return error.connection_invalidated or isinstance(
        error, exc.OperationalError | exc.InterfaceError
    )
