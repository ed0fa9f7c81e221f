"""Quotas: what is decided, and that replicas together keep to it."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from shoal_gateway.errors import InvalidError, PreconditionError, QuotaError
from shoal_gateway.registry import quotas as rules
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.members import Members
from shoal_gateway.registry.quotas import DAY, MINUTE, Exceeded, Quotas, Used
from shoal_gateway.registry.schema import users
from shoal_gateway.registry.store import Store
from shoal_gateway.registry.submission import Creation
from shoal_protos.gateway.model.v1 import job_pb2
from tests.services.registry.conftest import Outcome, manifest, spec

FRESH = Used(0, 0.0, 0, 0.0, 0)
NOW = 1e9


def taken(quotas, used, now, count):
    """How many of so many jobs there may be, and what is used then."""
    done = 0
    for _ in range(count):
        after = rules.next_job("ada", quotas, used, now)
        if isinstance(after, Exceeded):
            break
        used, done = after, done + 1
    return done, used


def test_each_quota_stops_at_its_value_and_says_which_how_much_and_when():
    used = FRESH.at(NOW)
    done, full = taken(Quotas(5, 100, 1), used, NOW, 10)
    assert done == 5
    said = rules.next_job("ada", Quotas(5, 100, 1), full, NOW)
    assert said.quota == "jobs_in_flight"
    assert "5 are allowed; try again when one has ended" in said.said
    done, full = taken(Quotas(100, 5, 1), used, NOW, 10)
    assert done == 5
    said = rules.next_job("ada", Quotas(100, 5, 1), full, NOW + 48.5)
    assert said.quota == "submits_per_minute"
    assert "5 are allowed; try again in 12 s" in said.said
    assert taken(Quotas(100, 5, 1), full.at(NOW + MINUTE), NOW + MINUTE, 10)[0] == 5
    said = rules.next_job("ada", Quotas(100, 100, 0), used, NOW)
    assert said.quota == "bytes_per_day"
    assert "try again in 24 h" in said.said


def test_bytes_up_to_the_quota_fit_and_a_new_day_begins_after_the_old_one():
    quotas = Quotas(bytes_per_day=10 << 20)
    used = rules.more_bytes("ada", quotas, FRESH.at(NOW), NOW, 10 << 20)
    assert used.day_bytes == 10 << 20
    said = rules.more_bytes("ada", quotas, used, NOW + DAY - 90, 1)
    assert "10 MiB in this day, this would be 1 bytes more" in said.said
    assert "try again in 91 s" in said.said
    assert rules.more_bytes("ada", quotas, used.at(NOW + DAY), NOW + DAY, 1).day_bytes == 1
    assert "larger quota" in rules.more_bytes("ada", quotas, used, NOW, 11 << 20).said


@given(
    st.floats(0, 2e9),
    st.lists(st.tuples(st.floats(-10, 100), st.integers(1, 20)), max_size=30),
    st.integers(0, 50),
)
def test_in_no_minute_more_than_the_quota(began, steps, quota):
    """Whatever the clock does, a minute that was begun lets no more through."""
    quotas = Quotas(10**6, quota, 10**6)
    used, now, in_minute = FRESH, began, 0
    for step, count in steps:
        now = max(0.0, now + step)
        before, used = used, used.at(now)
        if used.minute_began != before.minute_began:
            assert used.minute_began == now
            assert not 0.0 <= now - before.minute_began < MINUTE
            in_minute = 0
        done, used = taken(quotas, used, now, count)
        in_minute += done
        assert done == count or in_minute == quota
        assert in_minute <= quota


@pytest.fixture
def members(store):
    made = Members(store)
    made.put_user("ada", {}, create=True)
    made.put_user("bob", {}, create=True)
    return made


@pytest.fixture
def registry(store, members):
    return Registry(store, quotas=lambda: members.quotas)


def creation(account="ada", key=None, **changes):
    return Creation(account or "anybody", key or uuid.uuid4().hex, spec(**changes), account=account)


def create(registry, account="ada"):
    made = creation(account)
    return registry.create(made.owner, made.key, made.spec, account=account)[0]


def test_a_batch_says_which_of_its_jobs_were_refused_and_writes_the_others(registry, members):
    members.quotas = Quotas(jobs_in_flight=3)
    before = create(registry)
    batch = [creation(key=f"k{number}") for number in range(4)]
    batch[1:1] = [creation("bob"), creation(None)]
    answers = registry.create_many(batch)
    assert [each.quota for each in answers] == ["", "", "", "", *["jobs_in_flight"] * 2]
    assert [bool(each.id) for each in answers] == [True] * 4 + [False] * 2
    # The same batch again: what is there is told, what is not is still too much.
    again = registry.create_many(batch)
    assert [each.id for each in again] == [each.id for each in answers]
    registry.cancel(before.id, "")
    assert [each.quota for each in registry.create_many(batch)] == [*[""] * 5, "jobs_in_flight"]


def test_a_repeated_submit_costs_nothing(registry, members):
    members.put_user("ada", {"submits_per_minute": 1})
    first = creation(key="k")
    for _ in range(3):
        job, _ = registry.create(first.owner, "k", first.spec, account="ada")
    with pytest.raises(QuotaError, match="quota submits_per_minute: ada has submitted 1 jobs"):
        create(registry)
    assert members.users("ada")[0].used.submits_per_minute == 1
    assert registry.get(job.id)[0].account == "ada"


def test_a_replay_is_one_more_job_to_its_users_quotas(hands, registry, members):
    asked = creation(max_attempts=1)
    job_id = registry.create(asked.owner, asked.key, asked.spec, account="ada")[0].id
    (offer,) = hands.lease()
    hands.begin(offer)
    hands.expire(job_id)
    registry.sweep()
    members.quotas = Quotas(jobs_in_flight=1)
    other = create(registry)
    with pytest.raises(QuotaError, match="jobs_in_flight"):
        registry.replay(job_id)
    assert hands.job(job_id).state == job_pb2.STATE_DEAD
    with pytest.raises(PreconditionError, match="only a DEAD job"):
        registry.replay(other.id)
    registry.cancel(other.id, "")
    assert registry.replay(job_id).state == job_pb2.STATE_QUEUED
    used = members.users("ada")[0].used
    assert (used.jobs_in_flight, used.submits_per_minute) == (1, 3)


def test_own_quotas_win_over_the_common_ones_and_a_change_holds_at_once(registry, members):
    members.quotas = Quotas(jobs_in_flight=1)
    members.put_user("bob", {"jobs_in_flight": 2})
    for name in ("ada", "bob", "bob"):
        create(registry, name)
    for name in ("ada", "bob"):
        with pytest.raises(QuotaError):
            create(registry, name)
    members.quotas = Quotas(jobs_in_flight=2)
    create(registry, "ada")
    with pytest.raises(QuotaError):
        create(registry, "bob")


def test_nobodys_jobs_have_no_quotas_and_a_stranger_none(registry, members):
    members.quotas = Quotas(0, 0, 0)
    assert create(registry, "").account == ""
    with pytest.raises(InvalidError, match="no user 'eve'"):
        create(registry, "eve")


def test_what_jobs_publish_is_counted_and_stops_the_next_submit(hands, registry, members):
    members.put_user("ada", {"bytes_per_day": 5})
    jobs = [create(registry).id for _ in range(2)]
    for offer in hands.lease():
        held = hands.begin(offer)
        made = manifest(1, held.runner_id)  # three bytes
        assert hands.report(held, Outcome.OUTCOME_SUCCEEDED, manifest=made).accepted
    assert members.users("ada")[0].used.bytes_per_day == 6
    assert {hands.job(each).state for each in jobs} == {5}
    with pytest.raises(
        QuotaError, match=r"6 bytes in this day, and 5 bytes are allowed; try again"
    ):
        create(registry)
    with pytest.raises(QuotaError, match="bytes_per_day"):
        members.charge("ada", 1)
    members.charge("bob", 1)
    with members._store.write() as connection:
        connection.execute(users.update().values(day_began=users.c.day_began - DAY))
    create(registry)
    assert members.users("ada")[0].used.bytes_per_day == 0


def test_replicas_together_let_no_more_through_than_one_would(store_url, store, members):
    members.put_user("ada", {"jobs_in_flight": 30, "submits_per_minute": 40})
    members.put_user("bob", {"submits_per_minute": 25})
    stores = [Store(store_url) for _ in range(3)]
    replicas = [Registry(each) for each in stores]
    start = threading.Barrier(6)

    def hammer(number):
        start.wait()
        done = []
        for turn in range(8):
            batch = [creation(("ada", "bob")[(turn + at) % 2]) for at in range(number + 1)]
            done += replicas[number % 3].create_many(batch)
        return done

    with ThreadPoolExecutor(6) as threads:
        answers = [each for done in threads.map(hammer, range(6)) for each in done]
    for each in stores:
        each.close()
    by_quota = {each.quota for each in answers}
    assert by_quota == {"", "jobs_in_flight", "submits_per_minute"}
    with store.read() as connection:
        counted = dict(
            connection.execute(sa.text("SELECT account, count(*) FROM jobs GROUP BY account")).all()
        )
    assert counted == {"ada": 30, "bob": 25}
    assert sum(bool(each.id) for each in answers) == 55


@pytest.mark.parametrize("columns", ["account = 'ada'", "account = 'ada' AND state = 'QUEUED'"])
def test_a_users_jobs_are_found_by_an_index(sqlite_url, columns):
    made = Store(sqlite_url)
    with made.read() as connection:
        query = f"EXPLAIN QUERY PLAN SELECT id FROM jobs WHERE {columns} ORDER BY ordinal DESC"
        plan = " ".join(str(row) for row in connection.execute(sa.text(query)))
    made.close()
    assert "USING INDEX jobs_" in plan
    assert "SCAN" not in plan
