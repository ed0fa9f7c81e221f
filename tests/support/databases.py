"""Databases for tests of the store: a SQLite file, or a database in a real PostgreSQL."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa

from shoal_gateway.fleet.pginstalled import PostgresError, find_programs
from shoal_gateway.fleet.postgres import PostgresServer


def _absent() -> str:
    try:
        find_programs()
    except PostgresError as error:
        return str(error)
    return ""


# Why there is none; empty when there is one.
POSTGRES_ABSENT = _absent()

needs_postgres = pytest.mark.skipif(bool(POSTGRES_ABSENT), reason=POSTGRES_ABSENT)

# Where PostgreSQL is not installed, what needs it alone is skipped and says so.
KINDS = ["sqlite"] if POSTGRES_ABSENT else ["sqlite", "postgres"]


class Databases:
    """Makes databases in a server, and removes them."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._numbers = itertools.count(1)
        self._engine = sa.create_engine(
            server.url_of("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )

    def fresh(self) -> str:
        """The URL of an empty database."""
        name = f"test_{next(self._numbers)}"
        with self._engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        return self.server.url_of(name)

    def drop(self, url: str) -> None:
        with self._engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)"))


@pytest.fixture(scope="session")
def databases(tmp_path_factory):
    """One server for the whole run."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres") / "server").start()
    yield Databases(server)
    server.remove()


@pytest.fixture
def postgres_url(databases):
    """A database of this test's own."""
    url = databases.fresh()
    yield url
    databases.drop(url)


@pytest.fixture
def own_postgres(tmp_path):
    """A server for one test, which may kill or pause it."""
    server = PostgresServer(tmp_path / "own-postgres").start()
    yield server
    server.remove()


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path}/registry.db"


@pytest.fixture(params=KINDS)
def store_url(request):
    """Where a store can be; the test runs once for each kind of database."""
    return request.getfixturevalue(f"{request.param}_url")
