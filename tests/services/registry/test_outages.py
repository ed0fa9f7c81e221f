"""What the store says when PostgreSQL is lost, and what a repeated request then gets."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg.errors
import pytest
import sqlalchemy as sa

from shoal_gateway.errors import AlreadyExistsError, PreconditionError, UnavailableError
from shoal_gateway.fleet.postgres import PostgresServer
from shoal_gateway.registry import accounts, engines, journal, outages, submission
from shoal_gateway.registry.claims import Report, Start
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.members import Members
from shoal_gateway.registry.quotas import Quotas
from shoal_gateway.registry.rules import Ending
from shoal_gateway.registry.schema import counters, jobs
from shoal_gateway.registry.store import Store, StoreError
from shoal_gateway.registry.submission import Creation
from shoal_protos.gateway.model.v1 import job_pb2
from tests.services.registry.conftest import Hands, Outcome, away, manifest, spec
from tests.support.databases import needs_postgres
from tests.support.pgproxy import CommitCutter
from tests.support.waiting import eventually

pytestmark = needs_postgres


@pytest.fixture
def pg_store(postgres_url):
    made = Store(postgres_url)
    yield made
    made.close()


@pytest.fixture
def cutter(postgres_url):
    made = CommitCutter(postgres_url)
    yield made
    made.close()


@pytest.fixture
def cut_hands(cutter):
    store = Store(cutter.url)
    yield Hands(store)
    store.close()


def twice(cutter, when, call, skip=0):
    """Calls, loses the answer to the commit, and calls again; the second answer.

    A call that reads before it writes has ended ``skip`` transactions by then.
    """
    cutter.cut(when, skip=skip)
    with pytest.raises(UnavailableError, match="did not say whether it has written this down"):
        call()
    assert cutter.cuts == 1
    return call()


both = pytest.mark.parametrize("when", ["before", "after"])


@both
def test_a_repeated_submit_makes_one_job(cutter, cut_hands, when):
    registry = cut_hands.registry
    job, created = twice(cutter, when, lambda: registry.create("ada", "key", spec()))
    assert created == (when == "before")
    assert [each.id for each in registry.page("ada", [], 10, "")[0]] == [job.id]


@both
def test_a_repeated_begin_gets_the_fence_that_the_first_was_given(cutter, cut_hands, when):
    cut_hands.submit()
    (offer,) = cut_hands.lease()
    start = Start(offer.job_id, offer.fence, offer.attempt, str(uuid.uuid4()), "manager", "host")
    fence = twice(cutter, when, lambda: cut_hands.registry.begin(start, 60.0))
    job = cut_hands.job(offer.job_id)
    assert (job.state, job.fence, job.attempt) == (job_pb2.STATE_RUNNING, fence, 1)
    assert [each.runner_id for each in job.attempts] == [start.runner_id]
    # Another runner with the same offer is not the one that began.
    other = Start(offer.job_id, offer.fence, offer.attempt, str(uuid.uuid4()), "manager", "host")
    with pytest.raises(PreconditionError, match="drop it"):
        cut_hands.registry.begin(other, 60.0)


@both
@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.OUTCOME_SUCCEEDED,
        Outcome.OUTCOME_FAILED,
        Outcome.OUTCOME_SUPERVISOR_LOST,
        Outcome.OUTCOME_ABANDONED,
    ],
)
def test_a_repeated_report_is_accepted_and_counts_once(cutter, cut_hands, when, outcome):
    holding = cut_hands.running(max_attempts=3)
    brought = manifest(1, holding.runner_id) if outcome == Outcome.OUTCOME_SUCCEEDED else None
    ending = Ending(outcome, holding.runner_id, exit_code=1, manifest=brought)
    report = Report(holding.job_id, holding.fence, ending)
    (item,) = twice(cutter, when, lambda: cut_hands.registry.report([report]))
    assert item.accepted
    job, events = cut_hands.registry.get(holding.job_id)
    assert item.state == job.state
    # Submitted, queued, leased, running, and its end, once.
    assert len(events) == 5
    assert job.toxic_losses == (outcome == Outcome.OUTCOME_SUPERVISOR_LOST)


@both
@pytest.mark.parametrize(
    "outcome", [Outcome.OUTCOME_SUCCEEDED, Outcome.OUTCOME_FAILED, Outcome.OUTCOME_CANCELLED]
)
def test_a_repeated_report_of_a_cancelled_job_is_accepted_too(cutter, cut_hands, when, outcome):
    holding = cut_hands.running()
    cut_hands.registry.cancel(holding.job_id, "")
    fence = cut_hands.renew(holding).fence
    brought = manifest(1, holding.runner_id) if outcome == Outcome.OUTCOME_SUCCEEDED else None
    ending = Ending(outcome, holding.runner_id, exit_code=0, manifest=brought)
    report = Report(holding.job_id, fence, ending)
    (item,) = twice(cutter, when, lambda: cut_hands.registry.report([report]))
    assert (item.accepted, item.state) == (True, job_pb2.STATE_CANCELLED)


@both
def test_repeated_cancels_renewals_and_releases_change_nothing_more(cutter, cut_hands, when):
    holding = cut_hands.running()
    item = twice(cutter, when, lambda: cut_hands.renew(holding))
    assert item.fence == holding.fence
    cutter.cuts = 0
    job = twice(cutter, when, lambda: cut_hands.registry.cancel(holding.job_id, ""))
    assert job.fence == holding.fence + 1
    cutter.cuts = 0
    cut_hands.submit()
    (offer,) = cut_hands.lease()
    released = [(offer.job_id, offer.fence)]
    twice(cutter, when, lambda: cut_hands.registry.release(released, ""))
    assert cut_hands.job(offer.job_id).state == job_pb2.STATE_QUEUED


def test_a_replay_that_was_carried_out_is_refused_the_second_time_with_what_is(cutter, cut_hands):
    holding = cut_hands.running(max_attempts=3)
    for _ in range(2):
        cut_hands.report(holding, Outcome.OUTCOME_SUPERVISOR_LOST)
        holding = cut_hands.again(holding.job_id)
    cut_hands.report(holding, Outcome.OUTCOME_SUPERVISOR_LOST)
    assert cut_hands.job(holding.job_id).state == job_pb2.STATE_DEAD
    with pytest.raises(PreconditionError, match="is QUEUED; only a DEAD job"):
        twice(cutter, "after", lambda: cut_hands.registry.replay(holding.job_id))


def test_offers_whose_answer_was_lost_are_made_again_when_they_expire(cutter, cut_hands):
    job_id = cut_hands.submit()
    assert twice(cutter, "after", cut_hands.lease, skip=2) == []
    cut_hands.expire(job_id)
    assert [each.job_id for each in cut_hands.lease()] == [job_id]


def test_a_server_that_dies_within_a_transaction_is_unavailable_until_it_is_back(own_postgres):
    store = Store(own_postgres.url)
    hands = Hands(store)
    kept = hands.submit()

    def die_in_the_middle():
        with store.write() as connection:
            journal.reserve(connection)
            own_postgres.kill()
            journal.reserve(connection)

    with pytest.raises(UnavailableError, match="did not answer"):
        die_in_the_middle()
    for call in (hands.submit, hands.registry.latest):
        with pytest.raises(UnavailableError):
            call()
    own_postgres.start()
    # The connections of before are known to be dead, and nobody is given one of them.
    assert hands.job(kept).state == job_pb2.STATE_QUEUED
    assert hands.registry.latest() == 2
    hands.submit()
    store.close()


def test_a_server_that_is_being_shut_down_is_unavailable(own_postgres):
    store = Store(own_postgres.url)
    connection = store._reader.connect()
    own_postgres.stop()
    with away("terminating"), outages.says_unavailable():
        connection.execute(sa.text("SELECT 1"))
    connection.close()
    store.close()


def test_a_start_waits_for_a_server_that_is_not_up_yet(tmp_path):
    server = PostgresServer(tmp_path / "server").start()
    server.stop()
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            server.start()

    store = Store(server.url, wait=60.0, sleep=sleep)
    assert len(slept) == 3
    Hands(store).submit()
    store.close()
    server.remove()


def test_a_start_gives_up_in_the_end_and_says_what_to_look_at(tmp_path):
    server = PostgresServer(tmp_path / "server").start()
    server.stop()
    passed = iter(range(100))
    with pytest.raises(StoreError, match=r"can't be reached; see that it runs.*refused"):
        Store(server.url, wait=5.0, sleep=lambda _: None, clock=lambda: float(next(passed)))
    assert next(passed) >= 5
    server.remove()


def test_two_that_wait_for_each_other_are_told_to_try_again(pg_store):
    """A real deadlock: the server undoes one of the two."""
    met = threading.Barrier(2)
    ends = []

    def work(first, second):
        try:
            with pg_store.write() as connection:
                for name in (first, second):
                    connection.execute(
                        counters.update().where(counters.c.name == name).values(value=7)
                    )
                    if name == first:
                        met.wait(30)
            ends.append("written")
        except UnavailableError as error:
            ends.append(outages.why(error))

    threads = [
        threading.Thread(target=work, args=names)
        for names in (("event", "schema"), ("schema", "event"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(end == "written" for end in ends) == [False, True]
    assert any("deadlock" in end for end in ends)


def waiting_for_a_lock(store):
    with store.read() as connection:
        return connection.scalar(
            sa.text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )


@pytest.mark.parametrize("kind", ["report", "release"])
def test_a_batch_takes_all_its_jobs_before_it_takes_the_counter(pg_store, kind):
    """Else it would hold the counter and wait for a job whose holder waits for the counter."""
    hands = Hands(pg_store)
    holdings = sorted((hands.running() for _ in range(2)), key=lambda each: each.job_id)
    for _ in range(2):
        hands.submit()
    offers = sorted((each.job_id, each.fence) for each in hands.lease())
    last = offers[-1][0] if kind == "release" else holdings[-1].job_id
    batches = {
        "report": lambda: hands.registry.report(
            [
                Report(each.job_id, each.fence, Ending(Outcome.OUTCOME_ABANDONED, each.runner_id))
                for each in holdings
            ]
        ),
        "release": lambda: hands.registry.release(offers, ""),
    }
    batch = threading.Thread(target=batches[kind])
    with pg_store.write() as connection:
        connection.execute(sa.select(jobs.c.id).where(jobs.c.id == last).with_for_update())
        batch.start()
        eventually(lambda: waiting_for_a_lock(pg_store), what="the batch's wait for its last job")
        connection.execute(sa.text("SET LOCAL lock_timeout = '500ms'"))
        journal.reserve(connection)
    batch.join(60)
    assert not batch.is_alive()


def beside(store, work, then):
    """What is done by ``then``, which has to wait for ``work``'s transaction."""
    with ThreadPoolExecutor(1) as other:
        with store.write() as connection:
            work(connection)
            answer = other.submit(then)
            eventually(lambda: waiting_for_a_lock(store), what="the other's wait")
        return answer.result(60)


@pytest.mark.parametrize("many", [False, True], ids=["one", "batch"])
def test_a_repetition_that_meets_its_first_try_costs_no_quota(pg_store, many):
    members = Members(pg_store, Quotas(jobs_in_flight=1))
    members.put_user("ada", {}, create=True)
    registry = Registry(pg_store, quotas=lambda: members.quotas)
    asked = Creation("ada", "key", spec(), account="ada")
    job_id = str(uuid.uuid4())

    def first(connection):
        allowed = accounts.Allowances(connection, members.quotas, ["ada"])
        assert allowed.take("ada") is None
        allowed.note()
        submission.insert(connection, [(job_id, asked)])

    def again():
        if many:
            return registry.create_many([asked])[0].id
        return registry.create("ada", "key", asked.spec, account="ada")[0].id

    assert beside(pg_store, first, again) == job_id


def test_a_user_and_a_token_that_are_made_twice_at_once_are_made_once(pg_store):
    members = Members(pg_store)
    with pytest.raises(AlreadyExistsError, match="a user ada already"):
        beside(
            pg_store,
            lambda connection: accounts.put_user(connection, "ada", {}, create=True),
            lambda: members.put_user("ada", {}, create=True),
        )
    token = ("0" * 16, b"x" * 32, "ada", [1])
    beside(
        pg_store,
        lambda connection: accounts.create_token(connection, *token, "", 60.0),
        lambda: members.create_token(*token, label="", valid=60.0),
    )
    assert [each.id for each in members.tokens()] == [token[0]]


def test_what_stays_locked_is_unavailable_and_readers_are_not_held_up(postgres_url, monkeypatch):
    monkeypatch.setitem(engines._SESSION, "lock_timeout", 200)
    store = Store(postgres_url)
    hands = Hands(store)
    with store.write() as connection:
        journal.reserve(connection)
        with away("lock timeout"):
            hands.submit()
        assert hands.registry.counts("") == {}
    hands.submit()
    store.close()


def test_a_replica_that_stops_within_a_transaction_holds_nobody_up(postgres_url):
    stopped, store = Store(postgres_url), Store(postgres_url)

    def stop_in_the_middle():
        with stopped.write() as connection:
            limit = connection.scalar(sa.text("SHOW idle_in_transaction_session_timeout"))
            assert limit == f"{engines._SESSION['idle_in_transaction_session_timeout'] // 1000}s"
            # Shorter for this transaction alone: a busy machine must not end the others.
            connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 300"))
            journal.reserve(connection)
            # It waits for the counter until the server has ended the other's session.
            Hands(store).submit()
            journal.reserve(connection)

    with away("idle-in-transaction"):
        stop_in_the_middle()
    assert Registry(store).latest() == 2
    stopped.close()
    store.close()


def test_more_callers_than_connections_are_told_so(postgres_url, monkeypatch):
    monkeypatch.setattr(engines, "POOL", 1)
    monkeypatch.setattr(engines, "BUSY_TIMEOUT", 0.2)
    store = Store(postgres_url)
    with store.read(), pytest.raises(UnavailableError, match="busy"), store.read():
        pass
    store.close()


def test_a_reader_sees_one_state_and_cannot_write(pg_store):
    hands = Hands(pg_store)
    with pg_store.read() as connection:
        assert journal.latest(connection) == 0
        hands.submit()
        assert journal.latest(connection) == 0
    with away("read-only"), pg_store.read() as connection:
        connection.execute(jobs.delete())


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (psycopg.errors.CannotConnectNow, True),  # "the database system is starting up"
        (psycopg.errors.AdminShutdown, True),
        (psycopg.errors.CrashShutdown, True),
        (psycopg.errors.SerializationFailure, True),
        (psycopg.errors.DeadlockDetected, True),
        (psycopg.errors.TooManyConnections, True),
        (psycopg.errors.QueryCanceled, True),
        (psycopg.errors.LockNotAvailable, True),
        (psycopg.errors.IdleInTransactionSessionTimeout, True),
        (psycopg.OperationalError, True),
        (psycopg.InterfaceError, True),
        (psycopg.errors.UndefinedTable, False),
        (psycopg.errors.UniqueViolation, False),
        (psycopg.errors.InvalidPassword, False),
        (psycopg.errors.InFailedSqlTransaction, False),
        (psycopg.ProgrammingError, False),
    ],
)
def test_which_errors_pass_by_themselves(error, passes):
    wrapped = sa.exc.DBAPIError.instance(
        "SELECT 1", {}, error("said"), psycopg.Error, connection_invalidated=False
    )
    assert outages.passing(wrapped) is passes
