"""The registry's operations on a real SQLite file and in a real PostgreSQL.

A job's life from submit to end, operation by operation; long because each has its refusals.
"""

from __future__ import annotations

import time
import uuid

import pytest

from shoal_gateway.errors import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    PreconditionError,
)
from shoal_gateway.registry.claims import Holding, Report, Start
from shoal_gateway.registry.rules import Ending
from shoal_gateway.registry.schema import events, manifest_files, manifests
from shoal_gateway.registry.submission import Creation
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2
from tests.services.registry.conftest import Outcome, manifest, spec

Verdict = registry_pb2.RenewResponse


def states(hands, job_id):
    return [
        job_pb2.State.Name(event.state).removeprefix("STATE_")
        for event in hands.registry.get(job_id)[1]
    ]


def test_a_job_says_who_signed_its_submit(hands):
    job, _ = hands.registry.create("ada", "k", spec(), "", "ada/0badc0de")
    assert job.signed_by == "ada/0badc0de"
    found, events = hands.registry.get(job.id)
    assert found.signed_by == "ada/0badc0de"
    assert events[0].message == "submitted by ada, signed with ada/0badc0de"
    plain = hands.submit()
    assert hands.job(plain).signed_by == ""
    many = hands.registry.create_many([Creation("ada", "m", spec(), signed_by="ada/1")], whole=True)
    assert many[0].job.signed_by == "ada/1"
    # A repeated submit is what it was, whoever signed it this time.
    again, created = hands.registry.create("ada", "k", spec(), "", "ada/2")
    assert (again.signed_by, created) == ("ada/0badc0de", False)


def test_a_job_goes_all_the_way(hands):
    holding = hands.running()
    assert hands.job(holding.job_id).attempts[0].outcome == "running"
    item = hands.report(holding, Outcome.OUTCOME_SUCCEEDED, exit_code=0)
    assert item.accepted
    job = hands.job(holding.job_id)
    assert job.state == job_pb2.STATE_SUCCEEDED
    assert job.exit_code == 0
    assert job.HasField("exit_code")
    assert job.manifest.runner_id == holding.runner_id
    assert [file.name for file in job.manifest.files] == ["nap.json"]
    assert job.attempts[0].outcome == "succeeded"
    assert job.attempts[0].HasField("ended_at")
    assert not job.HasField("lease_until")
    assert states(hands, holding.job_id) == [
        "SUBMITTED",
        "QUEUED",
        "LEASED",
        "RUNNING",
        "SUCCEEDED",
    ]


def test_times_are_the_stores_and_read_as_now(hands):
    job = hands.job(hands.submit())
    assert job.submitted_at.seconds == pytest.approx(time.time(), abs=5.0)


def test_the_same_key_gives_the_same_job_and_another_request_conflicts(hands):
    first, created = hands.registry.create("ada", "k", spec())
    again, created_again = hands.registry.create("ada", "k", spec())
    assert (created, created_again) == (True, False)
    assert again.id == first.id
    with pytest.raises(AlreadyExistsError, match=f"(?s)idempotency_key.*{first.id}"):
        hands.registry.create("ada", "k", spec(flavor="other"))
    other, created = hands.registry.create("bob", "k", spec(flavor="other"))
    assert created
    assert other.id != first.id


def test_a_fingerprint_stands_for_the_request_whatever_it_resolved_to(hands):
    first, _ = hands.registry.create("ada", "k", spec(), "asked-for-nap")
    again, created = hands.registry.create("ada", "k", spec(flavor="moved"), "asked-for-nap")
    assert not created
    assert again.id == first.id
    assert again.spec.flavor == "local"


def test_an_unknown_job_is_not_found(hands):
    unknown = str(uuid.uuid4())
    for call in (
        lambda: hands.registry.get(unknown),
        lambda: hands.registry.cancel(unknown, ""),
        lambda: hands.registry.replay(unknown),
        lambda: hands.registry.begin(Start(unknown, 1, 1, str(uuid.uuid4()), "m", "h"), 5.0),
    ):
        with pytest.raises(NotFoundError, match=unknown):
            call()
    item = hands.report(Holding(unknown, 1, "r"), Outcome.OUTCOME_FAILED)
    assert (item.accepted, item.reason) == (False, f"there is no job {unknown}")
    assert hands.renew(Holding(unknown, 1, "r")).verdict == Verdict.VERDICT_LOST
    assert hands.registry.release([(unknown, 1)], "") == 0


def test_leases_go_oldest_first_and_by_flavor(hands):
    first, second = hands.submit(), hands.submit(flavor="legacy")
    third = hands.submit()
    assert [offer.job_id for offer in hands.lease(1)] == [first]
    assert [offer.job_id for offer in hands.lease(10, ["legacy"])] == [second]
    assert [offer.job_id for offer in hands.lease(10, ["legacy"])] == []
    (offer,) = hands.lease(10)
    assert (offer.job_id, offer.attempt, offer.fence) == (third, 1, 1)
    assert offer.spec.max_attempts == 100


def test_a_job_that_nobody_takes_goes_behind_the_others(hands):
    stubborn, other = hands.submit(), hands.submit()
    (offer,) = hands.lease(1)
    assert offer.job_id == stubborn
    assert hands.registry.release([(stubborn, offer.fence)], "full") == 1
    assert [each.job_id for each in hands.lease(1)] == [other]


def test_a_job_that_only_found_no_room_keeps_its_place(hands):
    ids = [hands.submit() for _ in range(3)]
    first, second = hands.lease(2)
    given = [(each.job_id, each.fence) for each in (second, first)]
    assert hands.registry.release(given, "full", keep_place=True) == 2
    assert [each.job_id for each in hands.lease(3)] == ids


def test_release_changes_no_counter_and_only_under_its_fence(hands):
    job_id = hands.submit()
    (offer,) = hands.lease()
    assert hands.registry.release([(job_id, offer.fence + 1)], "full") == 0
    assert hands.registry.release([(job_id, offer.fence)], "full") == 1
    assert hands.registry.release([(job_id, offer.fence)], "full") == 0
    job = hands.job(job_id)
    assert (job.state, job.attempt, job.failures) == (job_pb2.STATE_QUEUED, 0, 0)
    (again,) = hands.lease()
    assert again.fence > offer.fence
    with pytest.raises(PreconditionError, match="drop it"):
        hands.begin(offer)


def test_only_one_runner_begins_and_it_may_ask_again(hands):
    hands.submit()
    (offer,) = hands.lease()
    first = hands.begin(offer)
    assert hands.begin(offer, first.runner_id) == first
    with pytest.raises(PreconditionError, match="RUNNING"):
        hands.begin(offer)
    job = hands.job(offer.job_id)
    assert (job.attempt, len(job.attempts)) == (1, 1)


def test_a_runner_id_is_for_one_start(hands):
    first = hands.running()
    hands.submit()
    (offer,) = hands.lease()
    with pytest.raises(PreconditionError, match="runner id"):
        hands.begin(offer, first.runner_id)


def test_a_repeated_report_is_accepted_and_written_once(hands):
    holding = hands.running()
    published = manifest(1, holding.runner_id)
    assert hands.report(holding, Outcome.OUTCOME_SUCCEEDED, manifest=published).accepted
    before = hands.count(events)
    assert hands.report(holding, Outcome.OUTCOME_SUCCEEDED, manifest=published).accepted
    assert hands.count(events) == before
    refused = hands.report(holding, Outcome.OUTCOME_FAILED, exit_code=1)
    assert not refused.accepted
    assert refused.state == job_pb2.STATE_SUCCEEDED


def test_a_repeated_report_is_known_even_after_the_job_went_on(hands):
    holding = hands.running(retryable_exit_codes=[75], max_failures=2)
    assert hands.report(holding, Outcome.OUTCOME_FAILED, exit_code=75).accepted
    hands.again(holding.job_id)
    repeated = hands.report(holding, Outcome.OUTCOME_FAILED, exit_code=75)
    assert repeated.accepted
    assert hands.job(holding.job_id).failures == 1


def test_a_success_needs_the_manifest_of_its_own_attempt(hands):
    holding = hands.running()
    item = hands.report(holding, Outcome.OUTCOME_SUCCEEDED, manifest=manifest(2, holding.runner_id))
    assert not item.accepted
    assert "attempt 2" in item.reason
    assert hands.count(manifests) == hands.count(manifest_files) == 0


def test_a_plain_failure_is_final_and_a_retryable_one_is_not(hands):
    plain = hands.running(retryable_exit_codes=[75], max_failures=1)
    assert hands.report(plain, Outcome.OUTCOME_FAILED, exit_code=1).accepted
    assert hands.job(plain.job_id).state == job_pb2.STATE_FAILED

    holding = hands.running(retryable_exit_codes=[75], max_failures=1)
    assert hands.report(holding, Outcome.OUTCOME_FAILED, exit_code=75).state == job_pb2.STATE_QUEUED
    holding = hands.again(holding.job_id)
    assert hands.report(holding, Outcome.OUTCOME_FAILED, exit_code=75).state == job_pb2.STATE_FAILED
    job = hands.job(holding.job_id)
    assert "used up" in job.reason
    assert [attempt.outcome for attempt in job.attempts] == ["failed", "failed"]


def test_a_limit_that_was_hit_is_a_failure_without_an_exit_code(hands):
    holding = hands.running()
    assert hands.report(holding, Outcome.OUTCOME_FAILED, reason="ran longer than 10 s").accepted
    job = hands.job(holding.job_id)
    assert (job.state, job.reason) == (job_pb2.STATE_FAILED, "ran longer than 10 s")
    assert not job.HasField("exit_code")


def test_three_dead_supervisors_put_a_job_in_quarantine(hands):
    holding = hands.running()
    for expected in (job_pb2.STATE_QUEUED, job_pb2.STATE_QUEUED, job_pb2.STATE_DEAD):
        assert hands.report(holding, Outcome.OUTCOME_SUPERVISOR_LOST).state == expected
        if expected == job_pb2.STATE_QUEUED:
            holding = hands.again(holding.job_id)
    assert hands.job(holding.job_id).toxic_losses == 3


def test_abandoned_starts_count_and_end(hands):
    holding = hands.running(max_attempts=2)
    assert hands.report(holding, Outcome.OUTCOME_ABANDONED).state == job_pb2.STATE_QUEUED
    holding = hands.again(holding.job_id)
    assert hands.report(holding, Outcome.OUTCOME_ABANDONED).state == job_pb2.STATE_DEAD


def test_a_waiting_job_is_cancelled_at_once(hands):
    queued = hands.submit()
    assert hands.registry.cancel(queued, "changed my mind").state == job_pb2.STATE_CANCELLED
    assert "changed my mind" in hands.job(queued).reason
    leased = hands.submit()
    (offer,) = hands.lease()
    assert hands.registry.cancel(leased, "").state == job_pb2.STATE_CANCELLED
    with pytest.raises(PreconditionError, match="CANCELLED"):
        hands.begin(offer)
    before = hands.count(events)
    assert hands.registry.cancel(leased, "again").state == job_pb2.STATE_CANCELLED
    assert hands.count(events) == before


def test_a_running_job_is_told_and_a_late_success_is_discarded(hands):
    holding = hands.running()
    job = hands.registry.cancel(holding.job_id, "")
    assert (job.state, job.cancelling) == (job_pb2.STATE_RUNNING, True)
    late = hands.report(holding, Outcome.OUTCOME_SUCCEEDED)
    assert not late.accepted
    assert late.reason == f"fence {holding.fence} is old, the job is at {job.fence}"
    told = hands.renew(holding)
    assert (told.verdict, told.fence) == (Verdict.VERDICT_CANCEL, job.fence)
    # A success under the new fence publishes nothing either.
    assert hands.report(holding, Outcome.OUTCOME_SUCCEEDED, told.fence).accepted
    job = hands.job(holding.job_id)
    assert (job.state, job.cancelling) == (job_pb2.STATE_CANCELLED, False)
    assert hands.count(manifests) == 0


def test_a_cancelled_job_whose_runner_is_lost_is_cancelled(hands):
    holding = hands.running()
    hands.registry.cancel(holding.job_id, "")
    hands.expire(holding.job_id)
    hands.registry.sweep()
    assert hands.job(holding.job_id).state == job_pb2.STATE_CANCELLED


def test_nobody_but_the_owner_cancels(hands):
    item = hands.report(hands.running(), Outcome.OUTCOME_CANCELLED)
    assert (item.accepted, item.reason) == (False, "nobody asked for this job to be cancelled")


def test_renewal_keeps_a_lease_and_a_lost_one_is_said(hands):
    holding = hands.running()
    hands.expire(holding.job_id)
    # Expired by the clock, but nobody has taken it: the fence is still its own.
    assert hands.renew(holding).verdict == Verdict.VERDICT_HELD
    assert hands.registry.sweep() == 0
    hands.expire(holding.job_id)
    assert hands.registry.sweep() == 1
    assert hands.renew(holding).verdict == Verdict.VERDICT_LOST
    stranger = Holding(holding.job_id, holding.fence, str(uuid.uuid4()))
    assert hands.renew(stranger).verdict == Verdict.VERDICT_LOST


def test_a_paused_worker_does_not_overwrite_its_successor(hands):
    # The hole of gateways whose lease has a time and no fence.
    paused = hands.running()
    hands.expire(paused.job_id)
    successor = hands.again(paused.job_id)
    stale_manifest = manifest(1, paused.runner_id)
    refused = hands.report(paused, Outcome.OUTCOME_SUCCEEDED, manifest=stale_manifest)
    assert not refused.accepted
    assert "is old" in refused.reason
    # Not even with a fence that it guessed.
    guessed = hands.report(
        paused, Outcome.OUTCOME_SUCCEEDED, successor.fence, manifest=manifest(2, paused.runner_id)
    )
    assert not guessed.accepted
    assert hands.report(successor, Outcome.OUTCOME_SUCCEEDED).accepted
    assert not hands.report(paused, Outcome.OUTCOME_SUCCEEDED, manifest=stale_manifest).accepted
    job = hands.job(paused.job_id)
    assert job.manifest.runner_id == successor.runner_id
    assert hands.count(manifests) == 1
    assert [attempt.outcome for attempt in job.attempts] == ["lease lost", "succeeded"]


def test_expired_leases_do_not_bypass_the_bound_on_starts(hands):
    job_id = hands.submit(max_attempts=3)
    for number in (1, 2, 3):
        holding = hands.again(job_id)
        assert hands.job(job_id).attempt == number
        hands.expire(job_id)
        hands.registry.sweep()
    job = hands.job(job_id)
    assert job.state == job_pb2.STATE_DEAD
    assert "all 3 starts are used up" in job.reason
    assert hands.lease() == []
    assert not hands.report(holding, Outcome.OUTCOME_SUCCEEDED).accepted


def test_an_expired_offer_is_no_start(hands):
    job_id = hands.submit(max_attempts=1)
    for _ in range(5):
        (offer,) = hands.lease()
        hands.expire(job_id)
    hands.registry.sweep()
    assert hands.job(job_id).attempt == 0
    (offer,) = hands.lease()
    assert offer.fence > 5
    hands.begin(offer)


def test_a_short_lease_runs_out_by_the_stores_clock(hands):
    hands.submit()
    assert len(hands.lease(seconds=0.1)) == 1
    deadline = time.monotonic() + 30.0
    while not (again := hands.lease(seconds=60.0)):
        assert time.monotonic() < deadline
    assert again[0].attempt == 1


def test_a_deadline_for_the_start_is_kept(hands):
    past = job_pb2.JobSpec().deadline
    past.FromSeconds(1)
    late = hands.submit(deadline=past)
    assert hands.lease() == []
    job = hands.job(late)
    assert (job.state, job.reason) == (job_pb2.STATE_FAILED, "not started by its deadline")


def test_replay_is_for_dead_jobs_and_starts_with_fresh_counters(hands):
    holding = hands.running(max_attempts=1)
    with pytest.raises(PreconditionError, match="only a DEAD job"):
        hands.registry.replay(holding.job_id)
    hands.expire(holding.job_id)
    hands.registry.sweep()
    assert hands.job(holding.job_id).state == job_pb2.STATE_DEAD
    assert hands.registry.replay(holding.job_id).state == job_pb2.STATE_QUEUED
    again = hands.again(holding.job_id)
    assert not hands.report(holding, Outcome.OUTCOME_SUCCEEDED).accepted
    assert hands.report(again, Outcome.OUTCOME_SUCCEEDED).accepted
    assert [attempt.number for attempt in hands.job(holding.job_id).attempts] == [1, 2]


def test_pages_go_through_all_jobs_once_newest_first(hands):
    made = [hands.submit() for _ in range(7)]
    seen, token = [], ""
    while True:
        found, token = hands.registry.page("ada", [], 3, token)
        seen += [job.id for job in found]
        if not token:
            break
    assert seen == made[::-1]
    assert hands.registry.page("bob", [], 3, "") == ([], "")
    hands.registry.cancel(made[2], "")
    cancelled, _ = hands.registry.page("", [job_pb2.STATE_CANCELLED], 3, "")
    assert [job.id for job in cancelled] == [made[2]]
    with pytest.raises(InvalidError, match="page_token"):
        hands.registry.page("", [], 3, "not a token")


def test_changes_are_one_order_over_all_jobs(hands):
    first, second = hands.submit(), hands.submit()
    found, last = hands.registry.changes(0, 3)
    assert [event.seq for event in found] == [1, 2, 3]
    rest, end = hands.registry.changes(last, 100)
    assert [event.job_id for event in [*found, *rest]] == [first, first, second, second]
    assert hands.registry.changes(end, 100) == ([], end)
    assert hands.registry.changes(-1, 100) == ([], end)
    assert hands.registry.latest() == end


def test_counts(hands):
    hands.submit()
    hands.registry.cancel(hands.submit(), "")
    expected = {job_pb2.STATE_QUEUED: 1, job_pb2.STATE_CANCELLED: 1}
    assert hands.registry.counts("") == expected
    assert hands.registry.counts("bob") == {}


def test_a_batch_answers_in_its_order_and_refuses_item_by_item(hands):
    holdings = [hands.running() for _ in range(4)]
    reports = [
        Report(
            each.job_id,
            each.fence - (1 if index == 2 else 0),
            Ending(Outcome.OUTCOME_SUCCEEDED, each.runner_id, manifest=manifest(1, each.runner_id)),
        )
        for index, each in enumerate(holdings)
    ]
    items = hands.registry.report(reports)
    assert [item.job_id for item in items] == [each.job_id for each in holdings]
    assert [item.accepted for item in items] == [True, True, False, True]
