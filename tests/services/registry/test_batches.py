"""Many jobs in one transaction: each is decided by itself, as if it had come alone."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from shoal_gateway.errors import PreconditionError, UnavailableError
from shoal_gateway.registry import claims
from shoal_gateway.registry.claims import Report, Start
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.rules import Ending
from shoal_gateway.registry.schema import attempts, events, jobs, manifests
from shoal_gateway.registry.submission import Creation
from shoal_protos.gateway.model.v1 import job_pb2
from tests.services.registry.conftest import Outcome, manifest, spec


def creation(key, **changes):
    return Creation("ada", key, spec(**changes))


def start(offer, runner_id=None):
    runner_id = runner_id or str(uuid.uuid4())
    return Start(offer.job_id, offer.fence, offer.attempt, runner_id, "appmanager-1", "host-1")


def begun(hands, count):
    """Runners that hold a job each, begun together."""
    for _ in range(count):
        hands.submit()
    starts = [start(offer) for offer in hands.lease(count)]
    fences = hands.registry.begin_many(starts, 60.0)
    return list(zip(starts, fences, strict=True))


def success(began, fence, outcome=Outcome.OUTCOME_SUCCEEDED):
    said = manifest(began.attempt, began.runner_id)
    ending = Ending(outcome, began.runner_id, exit_code=0, manifest=said)
    return Report(began.job_id, fence, ending)


def test_jobs_submitted_together_are_queued_in_their_order(hands):
    made = hands.registry.create_many([creation(f"k{index}") for index in range(20)])
    assert all(each.created and each.state == job_pb2.STATE_QUEUED for each in made)
    assert [offer.job_id for offer in hands.lease(20)] == [each.id for each in made]
    job, history = hands.registry.get(made[7].id)
    assert (job.owner, job.idempotency_key, job.fence, job.attempt) == ("ada", "k7", 1, 0)
    # The gateway's default, for none was asked for.
    assert job.spec.max_attempts == 100
    assert [each.state for each in history] == [
        job_pb2.STATE_SUBMITTED,
        job_pb2.STATE_QUEUED,
        job_pb2.STATE_LEASED,
    ]


def test_a_key_that_is_known_gives_its_job_and_one_that_stands_for_another_only_an_error(hands):
    (old,) = hands.registry.create_many([creation("old")])
    batch = [creation("new"), creation("old"), creation("old", flavor="other"), creation("new")]
    new, again, other, twice = hands.registry.create_many(batch, whole=True)
    assert (new.created, again.created, twice.created) == (True, False, False)
    assert (again.id, twice.id) == (old.id, new.id)
    assert other.id == ""
    assert old.id in other.error
    assert other.job is None
    assert (new.job.id, again.job.id, twice.job.id) == (new.id, old.id, new.id)
    assert new.job == hands.job(new.id)
    assert hands.count(jobs) == 2


def test_a_batch_that_collides_is_tried_once_more_and_then_refused_in_words(hands):
    (old,) = hands.registry.create_many([creation("old")])
    ids = iter([old.id, str(uuid.uuid4()), old.id, old.id, old.id])
    registry = Registry(hands.store, new_id=lambda: next(ids))
    (made,) = registry.create_many([creation("once")])
    assert made.created
    with pytest.raises(
        UnavailableError, match=r"1 jobs were not written.*submit them again"
    ) as told:
        registry.create_many([creation("twice")])
    assert isinstance(told.value.__cause__, IntegrityError)
    # Two tries and no third.
    assert next(ids) == old.id
    assert hands.count(jobs) == 2


def test_a_batch_begins_what_is_offered_and_refuses_the_rest_item_by_item(hands):
    for _ in range(4):
        hands.submit()
    fresh, taken, cancelled, old = hands.lease(4)
    holder = hands.begin(taken)
    hands.registry.cancel(cancelled.job_id, "")
    nobody = Start(str(uuid.uuid4()), 1, 1, str(uuid.uuid4()), "appmanager-1", "host-1")
    stale = Start(old.job_id, old.fence - 1, 1, str(uuid.uuid4()), "appmanager-1", "host-1")
    again = start(taken, holder.runner_id)
    batch = [start(fresh), start(taken), start(cancelled), nobody, stale]
    good, *bad = hands.registry.begin_many(batch, 60.0)
    assert good == fresh.fence + 1
    assert all(isinstance(each, str) for each in bad)
    assert "RUNNING" in bad[0]
    assert "CANCELLED" in bad[1]
    assert "there is no job" in bad[2]
    # The same runner asking again gets the same answer.
    assert hands.registry.begin_many([again], 60.0) == [holder.fence]
    assert hands.count(attempts) == 2
    job = hands.job(fresh.job_id)
    assert (job.state, job.fence, job.attempt) == (job_pb2.STATE_RUNNING, fresh.fence + 1, 1)
    assert job.attempts[0].fence == job.fence
    assert job.reason == "attempt 1 runs on host-1"


def test_an_attempt_says_the_version_of_its_manager_as_one_begun_alone_does(hands):
    hands.submit()
    (offer,) = hands.lease(1)
    hands.registry.begin_many([replace(start(offer), manager_version="1.2")], 60.0)
    assert [each.manager_version for each in hands.job(offer.job_id).attempts] == ["1.2"]


def test_a_job_that_is_there_twice_is_begun_by_the_first(hands):
    hands.submit()
    (offer,) = hands.lease(1)
    first, second = hands.registry.begin_many([start(offer), start(offer)], 60.0)
    assert first == offer.fence + 1
    assert "drop it" in second
    assert hands.count(attempts) == 1


def test_a_runner_id_that_was_used_fails_its_own_item_only(hands):
    (used, _), *_ = begun(hands, 1)
    for _ in range(2):
        hands.submit()
    one, two = hands.lease(2)
    good, bad = hands.registry.begin_many([start(one), start(two, used.runner_id)], 60.0)
    assert good == one.fence + 1
    assert "runner id" in bad
    assert hands.job(two.job_id).state == job_pb2.STATE_LEASED


def test_a_batch_of_reports_is_written_under_each_ones_fence(hands):
    (one, f1), (two, f2), (three, f3), (four, f4) = begun(hands, 4)
    hands.registry.cancel(three.job_id, "enough")
    failing = Report(two.job_id, f2, Ending(Outcome.OUTCOME_FAILED, two.runner_id, exit_code=9))
    batch = [
        success(one, f1),
        failing,
        success(three, f3),  # its fence moved with the cancel
        success(four, f4 - 1),
        success(one, f1),
        Report(str(uuid.uuid4()), 1, Ending(Outcome.OUTCOME_FAILED, one.runner_id)),
    ]
    items = hands.registry.report(batch)
    assert [item.accepted for item in items] == [True, True, False, False, True, False]
    assert [item.state for item in items[:2]] == [job_pb2.STATE_SUCCEEDED, job_pb2.STATE_FAILED]
    assert "is old" in items[2].reason
    assert hands.count(manifests) == 1
    done, failed = hands.job(one.job_id), hands.job(two.job_id)
    assert (done.exit_code, done.manifest.runner_id) == (0, one.runner_id)
    assert done.lease_owner == failed.lease_owner == ""
    assert (failed.exit_code, failed.reason) == (9, "exit code 9")
    assert [each.outcome for each in (*done.attempts, *failed.attempts)] == ["succeeded", "failed"]
    assert done.HasField("ended_at")
    assert hands.job(four.job_id).state == job_pb2.STATE_RUNNING


def test_different_ends_in_one_batch_each_lead_where_they_would_alone(hands):
    def ends(hands, one_by_one):
        pairs = begun(hands, 4)
        outcomes = [
            Outcome.OUTCOME_SUCCEEDED,
            Outcome.OUTCOME_FAILED,
            Outcome.OUTCOME_SUPERVISOR_LOST,
            Outcome.OUTCOME_ABANDONED,
        ]
        reports = [
            success(began, fence, outcome)
            for (began, fence), outcome in zip(pairs, outcomes, strict=True)
        ]
        groups = [[each] for each in reports] if one_by_one else [reports]
        for group in groups:
            hands.registry.report(group)
        found = []
        for began, _ in pairs:
            job, history = hands.registry.get(began.job_id)
            kept = (job.state, job.version, job.fence, job.toxic_losses, job.reason, job.exit_code)
            found.append((kept, [(each.state, each.message) for each in history]))
            if job.state == job_pb2.STATE_QUEUED:
                hands.registry.cancel(job.id, "")
        return found

    assert ends(hands, one_by_one=True) == ends(hands, one_by_one=False)


def test_what_is_released_together_waits_in_the_order_in_which_it_did(hands):
    ids = [hands.submit() for _ in range(6)]
    offers = hands.lease(6)
    given = [(offer.job_id, offer.fence) for offer in reversed(offers)]
    wrong = [(offers[0].job_id, 99), (str(uuid.uuid4()), 1)]
    assert hands.registry.release([*given, *wrong], "no room") == 6
    assert [offer.job_id for offer in hands.lease(6)] == ids


def test_a_lease_brings_no_more_than_a_message_holds(hands, monkeypatch):
    monkeypatch.setattr(claims, "MAX_BYTES", 5000)
    ids = [hands.submit(parameters={"x": "x" * 2000}) for _ in range(5)]
    assert [offer.job_id for offer in hands.lease(5)] == ids[:2]
    big = hands.submit(parameters={"x": "x" * 6000})
    assert [offer.job_id for offer in hands.lease(2)] == ids[2:4]
    assert [offer.job_id for offer in hands.lease(5)] == ids[4:]
    assert [offer.job_id for offer in hands.lease(5)] == [big]


def test_no_event_is_lost_and_none_has_the_number_of_another(hands):
    pairs = begun(hands, 50)
    hands.registry.report([success(began, fence) for began, fence in pairs])
    found, last = hands.registry.changes(0, 10_000)
    assert len(found) == hands.count(events) == 50 * 5
    assert len({each.seq for each in found}) == len(found)
    assert last == max(each.seq for each in found) == hands.registry.latest()


def test_alone_it_is_as_before(hands):
    hands.submit()
    (offer,) = hands.lease(1)
    hands.begin(offer)
    with pytest.raises(PreconditionError):
        hands.begin(offer)
