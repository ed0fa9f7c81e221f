"""Whatever schedulers, runners, owners and clocks do, in whatever order, the rules hold."""

from __future__ import annotations

import tempfile
import uuid

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from shoal_gateway.errors import PreconditionError
from shoal_gateway.registry.claims import Holding, Report
from shoal_gateway.registry.rules import TERMINAL, Ending
from shoal_gateway.registry.schema import manifest_files, manifests
from shoal_gateway.registry.store import Store
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2
from tests.services.registry.conftest import Hands, Outcome, manifest
from tests.support.databases import KINDS

Verdict = registry_pb2.RenewResponse

OUTCOMES = [
    Outcome.OUTCOME_SUCCEEDED,
    Outcome.OUTCOME_FAILED,
    Outcome.OUTCOME_CANCELLED,
    Outcome.OUTCOME_SUPERVISOR_LOST,
    Outcome.OUTCOME_ABANDONED,
]


class Interleavings(RuleBasedStateMachine):
    """Offers and holdings are never thrown away: every old one may be used again at any time."""

    jobs = Bundle("jobs")
    offers = Bundle("offers")
    holdings = Bundle("holdings")

    def __init__(self, url, remove) -> None:
        super().__init__()
        self.remove = remove
        self.store = Store(url)
        self.hands = Hands(self.store)
        self.ended: dict[str, job_pb2.Job] = {}
        self.fences: dict[str, int] = {}
        self.starts: dict[str, set[str]] = {}

    def teardown(self) -> None:
        self.store.close()
        self.remove()

    @initialize(target=jobs)
    def one_job(self):
        return self.hands.submit(max_attempts=3)

    @rule(target=jobs, max_attempts=st.integers(1, 4))
    def submit(self, max_attempts):
        return self.hands.submit(
            max_attempts=max_attempts, retryable_exit_codes=[75], max_failures=1
        )

    @rule(target=offers, limit=st.integers(1, 3))
    def lease(self, limit):
        return multiple(*self.hands.lease(limit))

    @rule(target=holdings, offer=offers)
    def begin(self, offer):
        runner_id = str(uuid.uuid4())
        before = self.hands.job(offer.job_id)
        try:
            holding = self.hands.begin(offer, runner_id)
        except PreconditionError:
            assert (before.state, before.fence) != (job_pb2.STATE_LEASED, offer.fence)
            return multiple()
        assert (before.state, before.fence) == (job_pb2.STATE_LEASED, offer.fence)
        self.starts.setdefault(offer.job_id, set()).add(runner_id)
        return holding

    @rule(target=holdings)
    def begin_what_waits(self):
        """Straight to a running job, where most of what can go wrong begins."""
        begun = []
        for offer in self.hands.lease(1):
            holding = self.hands.begin(offer)
            self.starts.setdefault(offer.job_id, set()).add(holding.runner_id)
            begun.append(holding)
        return multiple(*begun)

    @rule(offer=offers)
    def release(self, offer):
        before = self.hands.job(offer.job_id)
        held = (before.state, before.fence) == (job_pb2.STATE_LEASED, offer.fence)
        assert self.hands.registry.release([(offer.job_id, offer.fence)], "full") == held

    @rule(target=holdings, holding=consumes(holdings))
    def renew(self, holding):
        before = self.hands.job(holding.job_id)
        item = self.hands.renew(holding)
        if item.verdict == Verdict.VERDICT_HELD:
            assert (before.state, before.fence) == (job_pb2.STATE_RUNNING, holding.fence)
        if item.verdict == Verdict.VERDICT_CANCEL:
            assert before.cancelling
            return Holding(holding.job_id, item.fence, holding.runner_id)
        return holding

    @rule(holding=holdings, outcome=st.sampled_from(OUTCOMES), code=st.sampled_from([1, 75]))
    def report(self, holding, outcome, code):
        self._report(holding, holding.fence, outcome, code)

    @rule(holding=holdings, off=st.sampled_from([-1, 1, 2]), outcome=st.sampled_from(OUTCOMES))
    def report_with_a_fence_that_is_not_its_own(self, holding, off, outcome):
        self._report(holding, holding.fence + off, outcome, 75)

    def _report(self, holding, fence, outcome, code):
        before = self.hands.job(holding.job_id)
        brought = None
        if outcome == Outcome.OUTCOME_SUCCEEDED:
            brought = manifest(before.attempt, holding.runner_id)
        ending = Ending(outcome, holding.runner_id, exit_code=code, manifest=brought)
        (item,) = self.hands.registry.report([Report(holding.job_id, fence, ending)])
        after = self.hands.job(holding.job_id)
        if before.fence != fence or before.state != job_pb2.STATE_RUNNING:
            # An old fence never writes, whatever it is told.
            assert after == before
        if not item.accepted:
            assert after == before
            assert item.reason

    @rule(job_id=jobs)
    def cancel(self, job_id):
        self.hands.registry.cancel(job_id, "")

    @rule(job_id=jobs)
    def let_the_lease_run_out(self, job_id):
        self.hands.expire(job_id)

    @rule()
    def sweep(self):
        self.hands.registry.sweep()

    @invariant()
    def terminal_states_never_change(self):
        found, _ = self.hands.registry.page("", [], 1000, "")
        for job in found:
            known = self.ended.get(job.id)
            if known is not None:
                assert self.hands.job(job.id) == known
            elif job.state in TERMINAL:
                self.ended[job.id] = self.hands.job(job.id)

    @invariant()
    def fences_only_grow_and_starts_are_bounded(self):
        found, _ = self.hands.registry.page("", [], 1000, "")
        for job in found:
            assert job.fence >= self.fences.get(job.id, 0)
            self.fences[job.id] = job.fence
            assert job.attempt <= job.spec.max_attempts
            assert job.attempt == len(self.starts.get(job.id, ()))

    @invariant()
    def a_manifest_belongs_to_a_success_and_there_is_one(self):
        succeeded = self.hands.registry.counts("").get(job_pb2.STATE_SUCCEEDED, 0)
        assert self.hands.count(manifests) == succeeded
        assert self.hands.count(manifest_files) == succeeded

    @invariant()
    def histories_are_one_gapless_path(self):
        found, _ = self.hands.registry.changes(0, 10_000)
        assert [event.seq for event in found] == sorted({event.seq for event in found})
        last: dict[str, int] = {}
        for event in found:
            assert last.get(event.job_id) not in TERMINAL
            last[event.job_id] = event.state
        for job_id, state in last.items():
            assert self.hands.job(job_id).state == state


def on_sqlite():
    directory = tempfile.TemporaryDirectory()
    return f"sqlite:///{directory.name}/registry.db", directory.cleanup


# Each step of it is a few round trips to another process: fewer runs, and no shorter ones.
EXAMPLES = {"sqlite": 25, "postgres": 10}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_order_the_rules_hold(kind, request):
    fresh = on_sqlite
    if kind == "postgres":
        databases = request.getfixturevalue("databases")

        def fresh():
            url = databases.fresh()
            return url, lambda: databases.drop(url)

    run_state_machine_as_test(
        lambda: Interleavings(*fresh()),
        settings=settings(
            max_examples=EXAMPLES[kind],
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
