"""One store, several processes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.schema import CreateTable

from shoal_gateway.registry import engines, first_admin, schema
from shoal_gateway.registry.clock import store_now
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.store import Store, StoreError
from shoal_protos.gateway.model.v1 import job_pb2
from tests.services.registry.conftest import Hands, away

HERE = Path(__file__).parents[3]


def run_replicas(action, url, count=3):
    command = [sys.executable, "-m", "tests.services.registry.replica", action, url]
    replicas = [
        subprocess.Popen(
            [*command, f"scheduler-{index}"],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    for replica in replicas:
        assert replica.stdout.readline() == "ready\n"
    for replica in replicas:
        replica.stdin.write("go\n")
        replica.stdin.flush()
    answers = [replica.communicate(timeout=60)[0] for replica in replicas]
    assert [replica.returncode for replica in replicas] == [0] * count
    return [json.loads(answer) for answer in answers]


def test_three_replicas_start_at_once_on_an_empty_store(store_url):
    assert run_replicas("open", store_url) == [0, 0, 0]


def test_a_replica_that_starts_waits_for_one_that_writes(tmp_path, monkeypatch):
    # As SQLite does when two change the file's mode at once: it says so without waiting.
    monkeypatch.setattr(engines, "BUSY_TIMEOUT", 0.1)
    path = tmp_path / "registry.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        other.execute("COMMIT")

    made = Store(f"sqlite:///{path}", sleep=sleep, clock=lambda: 0.0)
    assert Registry(made).counts("") == {}
    assert len(waits) == 1
    made.close()


def test_a_file_that_somebody_keeps_to_himself_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "BUSY_TIMEOUT", 0.1)
    path = tmp_path / "registry.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"registry\.db can't be reached.*locked"):
        Store(f"sqlite:///{path}")
    other.close()


def test_three_replicas_share_the_work_and_do_none_twice(store_url):
    answers = run_replicas("work", store_url)
    finished = [job_id for answer in answers for job_id in answer]
    assert len(finished) == len(set(finished)) == 20
    made = Store(store_url)
    assert Registry(made).counts("") == {job_pb2.STATE_SUCCEEDED: 20}
    made.close()


def test_the_file_is_set_up_for_several_processes(sqlite_url):
    store = Store(sqlite_url)
    with store.write() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert settings == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "synchronous": 2,
        "busy_timeout": 10_000,
    }
    store.close()


def test_a_file_of_an_earlier_version_is_closed_to_others(tmp_path):
    path = tmp_path / "registry.db"
    Store(f"sqlite:///{path}").close()
    assert path.stat().st_mode & 0o777 == 0o600
    keeper = sqlite3.connect(path)
    keeper.execute("SELECT count(*) FROM jobs")
    files = [path, *tmp_path.glob("registry.db-*")]
    assert len(files) == 3
    for each in files:
        each.chmod(0o644)
    Store(f"sqlite:///{path}").close()
    # A group is somebody's wish, everybody is nobody's.
    assert [each.stat().st_mode & 0o777 for each in files] == [0o640] * 3
    keeper.close()


@pytest.mark.parametrize("days", ["nan", "0", "1e9", "x"])
def test_a_first_administrator_for_no_time_is_refused(sqlite_url, capsys, days):
    with pytest.raises(SystemExit) as ended:
        first_admin.main([sqlite_url, "--days", days])
    assert ended.value.code == 2
    assert "--days" in capsys.readouterr().err


def test_a_store_that_stays_locked_is_unavailable_and_not_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "BUSY_TIMEOUT", 0.2)
    path = tmp_path / "registry.db"
    made = Store(f"sqlite:///{path}")
    hands = Hands(made)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with away("locked"):
        hands.submit()
    # Readers are not held up by a writer.
    assert hands.registry.counts("") == {}
    blocker.execute("ROLLBACK")
    blocker.close()
    hands.submit()
    made.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:////no/such/directory/registry.db"])
def test_a_store_that_cannot_be_is_refused_with_what_to_do(url):
    with pytest.raises(StoreError, match="directory that exists"):
        Store(url)


def test_no_look_for_work_walks_through_the_table_or_sorts_it(sqlite_url):
    """What is asked with every lease costs the same however many jobs there are."""
    store = Store(sqlite_url)
    hands = Hands(store)
    for _ in range(60):
        hands.submit()
    asked = []
    sa.event.listen(
        store._engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, parameters, *_: asked.append(
            (statement, parameters)
        ),
    )
    assert len(hands.lease(50, flavors=["local"])) == 50
    searches = [each for each in asked if "FROM jobs" in each[0] or "UPDATE jobs" in each[0]]
    assert len(searches) == 5
    with store.read() as connection:
        for statement, parameters in searches:
            steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plan = [step.detail for step in steps]
            # By state alone would be all that wait.
            assert not [step for step in plan if "SCAN" in step or "(state=?)" in step], plan
            assert "state IN" in statement or "TEMP B-TREE" not in str(plan), (statement, plan)
    store.close()


def test_a_manifest_without_its_job_cannot_be_written(store):
    with pytest.raises(sa.exc.IntegrityError), store.write() as connection:
        connection.execute(
            schema.manifests.insert().values(
                job_id="none", attempt=1, runner_id="none", published_at=store_now()
            )
        )


def test_the_schema_and_the_clock_are_portable_to_postgresql():
    dialect = postgresql.dialect()
    tables = [
        str(CreateTable(table).compile(dialect=dialect)) for table in schema.metadata.sorted_tables
    ]
    assert any("DOUBLE PRECISION" in each for each in tables)
    assert "clock_timestamp()" in str(sa.select(store_now()).compile(dialect=dialect))
    with pytest.raises(NotImplementedError, match="mysql"):
        str(sa.select(store_now()).compile(dialect=mysql.dialect()))
