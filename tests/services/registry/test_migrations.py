"""Tables come from migrations, and are what the schema says, on every kind of database."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from shoal_gateway.registry import engines, migrations, schema
from shoal_gateway.registry.store import Store, StoreError
from shoal_protos.gateway.model.v1 import job_pb2
from tests.services.registry.conftest import Hands

VERSION = sa.table("alembic_version", sa.column("version_num"))
LATEST = "0007"


@pytest.fixture
def engine(store_url):
    made = engines.writer(engines.make_engine(sa.make_url(store_url)))
    yield made
    made.dispose()


def older_store(engine, schema_version=1):
    """The tables as registries made them before there were migrations."""
    with engine.begin() as connection:
        command.upgrade(migrations.configuration(connection), migrations.ADOPTED_AS)
        connection.execute(sa.text("DROP TABLE alembic_version"))
        connection.execute(
            sa.text("UPDATE counters SET value = :value WHERE name = 'schema'"),
            {"value": schema_version},
        )


def described(connection):
    """Tables as the database itself tells of them, with what alembic does not compare."""
    looked = sa.inspect(connection)
    return {
        table.name: {
            "columns": [
                (each["name"], str(each["type"]), each["nullable"], each["default"])
                for each in looked.get_columns(table.name)
            ],
            "key": looked.get_pk_constraint(table.name)["constrained_columns"],
            "foreign": sorted(
                (each["constrained_columns"], each["referred_table"], each["referred_columns"])
                for each in looked.get_foreign_keys(table.name)
            ),
            "unique": sorted(
                each["column_names"] for each in looked.get_unique_constraints(table.name)
            ),
            "checks": sorted(
                (each["name"], re.sub(r"\s+", " ", each["sqltext"]))
                for each in looked.get_check_constraints(table.name)
            ),
            "indexes": sorted(
                (each["name"], each["column_names"], bool(each["unique"]))
                for each in looked.get_indexes(table.name)
            ),
        }
        for table in schema.metadata.sorted_tables
    }


def test_the_migrations_make_what_the_schema_says(engine):
    with engine.begin() as connection:
        before, after = migrations.migrate(connection)
        assert before is None
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert context.get_current_revision() == after
        assert compare_metadata(context, schema.metadata) == []
        migrated = described(connection)
        connection.execute(VERSION.delete())
        schema.metadata.drop_all(connection)
        schema.metadata.create_all(connection)
        assert migrated == described(connection)
        assert migrated["jobs"]["checks"]


def test_the_comparison_sees_a_difference(engine):
    with engine.begin() as connection:
        migrations.migrate(connection)
        connection.execute(sa.text("DROP INDEX jobs_queue"))
        found = compare_metadata(MigrationContext.configure(connection), schema.metadata)
        assert [(each[0], each[1].name) for each in found] == [("add_index", "jobs_queue")]


def test_a_store_from_before_migrations_is_adopted_with_what_is_in_it(store_url, engine):
    older_store(engine)
    made = Store(store_url)
    job_id = Hands(made).submit()
    made.close()
    with engine.begin() as connection:
        # As it was before: by now it has been brought to the latest version.
        connection.execute(sa.text("DROP TABLE alembic_version"))
        connection.execute(sa.text("DROP INDEX jobs_deadlines"))
        connection.execute(sa.text("ALTER TABLE attempts DROP COLUMN manager_version"))
        connection.execute(sa.text("DROP TABLE fences"))
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN signed_by"))
        connection.execute(sa.text("DROP INDEX jobs_account"))
        connection.execute(sa.text("DROP INDEX jobs_in_flight"))
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN account"))
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN trace_context"))
        connection.execute(sa.text("DROP TABLE tokens"))
        connection.execute(sa.text("DROP TABLE users"))
        connection.execute(
            sa.text(
                "DELETE FROM counters WHERE name IN"
                " ('oldest@0003', 'oldest@0004', 'oldest@0005', 'oldest@0006', 'oldest@0007')"
            )
        )
    made = Store(store_url)
    assert Hands(made).job(job_id).state == job_pb2.STATE_QUEUED
    with made.read() as connection:
        assert connection.scalar(sa.select(VERSION.c.version_num)) == LATEST
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    made.close()


def test_a_store_that_is_newer_than_the_code_is_refused_and_left_alone(store_url, engine):
    Store(store_url).close()
    with engine.begin() as connection:
        connection.execute(VERSION.update().values(version_num="9999"))
    with pytest.raises(StoreError, match=r"version 9999 .* later one, or give --store another"):
        Store(store_url)
    with engine.begin() as connection:
        assert connection.scalar(sa.select(VERSION.c.version_num)) == "9999"


def test_a_newer_store_that_promises_to_get_on_with_the_code_is_used(store_url, engine):
    Store(store_url).close()
    with engine.begin() as connection:
        connection.execute(VERSION.update().values(version_num="9999"))
        migrations.lives_with(connection, "9999", LATEST)
    made = Store(store_url)
    job_id = Hands(made).submit()
    assert Hands(made).job(job_id).state == job_pb2.STATE_QUEUED
    made.close()
    with engine.begin() as connection:
        # Nothing was taken back: the newer registries go on with it.
        assert connection.scalar(sa.select(VERSION.c.version_num)) == "9999"
        connection.execute(sa.text("UPDATE counters SET value = 9999 WHERE name = 'oldest@9999'"))
    with pytest.raises(StoreError, match="version 9999"):
        Store(store_url)


def test_an_unnumbered_store_of_another_version_is_refused(store_url, engine):
    older_store(engine, schema_version=99)
    with pytest.raises(StoreError, match=r"version 99 .* --store"):
        Store(store_url)
    with engine.begin() as connection:
        assert not sa.inspect(connection).has_table("alembic_version")


def test_a_migration_that_fails_leaves_nothing_behind(store_url, engine):
    with engine.begin() as connection:
        # In the way of the last table that the first migration makes.
        connection.execute(sa.text("CREATE TABLE manifest_files (n int)"))
    with pytest.raises(sa.exc.DBAPIError, match="already exists"):
        Store(store_url)
    with engine.begin() as connection:
        assert sa.inspect(connection).get_table_names() == ["manifest_files"]
        connection.execute(sa.text("DROP TABLE manifest_files"))
    made = Store(store_url)
    Hands(made).submit()
    made.close()


def test_the_command_makes_the_tables_and_says_what_is_wrong(store_url, engine):
    command = [sys.executable, "-m", "shoal_gateway.registry.migrate", store_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"tables brought from none to {LATEST}" in done.stderr
    with engine.begin() as connection:
        connection.execute(VERSION.update().values(version_num="9999"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "version 9999" in done.stderr
