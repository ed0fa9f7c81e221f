"""A PostgreSQL server that is known by its directory, and comes back with what it had committed."""

from __future__ import annotations

import stat

import pytest
import sqlalchemy as sa

from shoal_gateway.fleet import pginstalled, processes
from shoal_gateway.fleet.postgres import PostgresError, PostgresServer
from tests.support.databases import needs_postgres
from tests.support.waiting import eventually

pytestmark = needs_postgres


@pytest.fixture
def server(tmp_path):
    made = PostgresServer(tmp_path / "postgres")
    yield made
    made.remove()


def family(server):
    return [server.process, *processes.children(server.process)]


def test_what_was_committed_survives_sigkill_and_what_was_not_is_gone(server):
    server.start()
    engine = sa.create_engine(server.url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept (n int)"))
        connection.execute(sa.text("INSERT INTO kept VALUES (1)"))
    open_transaction = engine.connect()
    open_transaction.execute(sa.text("INSERT INTO kept VALUES (2)"))
    was, port = family(server), server.port
    assert len(was) > 2  # the connection's process, and those that write in the background
    # Another command has nothing but the directory.
    PostgresServer(server.directory).kill()
    assert [each for each in was if processes.alive(each)] == []
    assert not server.running
    with pytest.raises(sa.exc.OperationalError):
        open_transaction.execute(sa.text("SELECT 1"))
    open_transaction.invalidate()
    server.start()
    assert server.port == port
    with engine.connect() as connection:
        assert connection.scalars(sa.text("SELECT n FROM kept")).all() == [1]


def test_it_is_stopped_from_another_object_and_by_force_if_paused(server):
    server.start()
    was = family(server)
    PostgresServer(server.directory).stop()
    assert [each for each in was if processes.alive(each)] == []
    server.start()
    server.pause()
    # The kernel stops each when it next runs.
    eventually(lambda: all(processes.paused(each) for each in family(server)))
    server.stop()
    assert not server.running


def test_a_paused_server_answers_nothing_and_goes_on(server):
    server.start()
    engine = sa.create_engine(
        server.url, poolclass=sa.NullPool, connect_args={"connect_timeout": 2}
    )
    server.pause()
    with pytest.raises(sa.exc.OperationalError, match="timeout"), engine.connect():
        pass
    server.resume()
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW fsync")) == "on"
        assert connection.scalar(sa.text("SHOW synchronous_commit")) == "on"


def test_nobody_comes_in_without_the_password(server):
    server.start()
    passwords = server.directory / "pgpass"
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
    assert passwords.read_text().strip().rpartition(":")[2] not in server.url
    engine = sa.create_engine(server.url.partition("?")[0], poolclass=sa.NullPool)
    with pytest.raises(sa.exc.OperationalError, match="password"), engine.connect():
        pass


def test_root_may_keep_it_in_a_directory_that_its_account_cannot_reach(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    account = pginstalled.find_account()
    server = PostgresServer(closed / "postgres")
    with server:
        # Whoever is not root runs it himself, and can reach what is his.
        assert server.data.is_symlink() == (account is not None)
        real = server.data.resolve()
        assert account in (None, real.owner())
    server.remove()
    assert not real.exists()


def test_its_end_is_told_with_its_log(server):
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("1\n")
    with pytest.raises(PostgresError, match=r"(?s)ended; its log ends with.*incompatible"):
        server.start()


def test_a_machine_without_it_is_told_what_to_install(server, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("POSTGRES_HOME", str(tmp_path))
    monkeypatch.setattr(pginstalled, "_DEBIAN", tmp_path)
    with pytest.raises(PostgresError, match="apt-get install postgresql"):
        server.start()
    assert not server.running


def test_a_server_that_was_never_started_has_no_port(server):
    with pytest.raises(PostgresError, match="was ever started"):
        _ = server.url
    server.kill()
    server.stop()


def test_its_first_process_carries_the_marks_of_its_fleet(tmp_path):
    server = PostgresServer(tmp_path / "postgres", environment={processes.FLEET_MARK: "f-1"})
    with server:
        assert server.process in list(processes.marked({processes.FLEET_MARK: "f-1"}))
        was = family(server)
        # Ended with the fleet: its children end when they find that it is gone.
        assert processes.kill_marked({processes.FLEET_MARK: "f-1"}) >= 1
        eventually(lambda: not any(processes.alive(each) for each in was), what="the end of all")
    server.remove()
