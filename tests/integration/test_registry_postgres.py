"""Two registries on one PostgreSQL that dies again and again: what they said is there, once.

Submitters, schedulers, runners and a follower work all the while. Whoever hears that the store is
away asks again; nobody gives up, and nobody remembers anything but what was acknowledged.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from shoal_gateway.convert import duration
from shoal_gateway.registry.store import Store
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc
from tests.services.registry.conftest import Hands, Outcome, manifest, spec
from tests.support.databases import needs_postgres
from tests.support.replicas import Replicas
from tests.support.waiting import eventually

pytestmark = [needs_postgres, pytest.mark.timeout(300)]

DEADLINE = 120.0
JOBS = 60
# So many acknowledged results let the store die once more.
DEATHS = [5, 15, 25, 35, 45]
AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.fixture
def registries(chroot, tmp_path, directories, own_postgres):
    with Replicas(chroot, tmp_path, directories()) as made:
        made.store = own_postgres.url
        yield made


class Work:
    """What everybody does, and what they were told."""

    def __init__(self, registry) -> None:
        self.registry = registry
        self.submitted: dict[str, str] = {}
        self.begun: list[tuple[str, int, str]] = []
        self.accepted: list[tuple[str, str]] = []
        self.followed: list[job_pb2.Event] = []
        self.offers: queue.Queue[registry_pb2.Offer] = queue.Queue()
        self.refused = threading.Semaphore(0)
        self.until = time.monotonic() + DEADLINE

    @property
    def done(self) -> bool:
        assert time.monotonic() < self.until, f"{len(self.accepted)} results in {DEADLINE:g} s"
        return len(self.accepted) >= JOBS

    def asked(self, call, request):
        """The answer; asks again while the store is away."""
        while True:
            assert time.monotonic() < self.until, f"no answer to {request}"
            try:
                return call(request, timeout=10.0)
            except grpc.RpcError as error:
                if error.code() not in AWAY:
                    raise
                self.refused.release()
                time.sleep(0.05)

    def submit(self, name) -> None:
        for number in range(JOBS // 2):
            # A few ahead of the results: then there are submits at each of the store's deaths.
            eventually(lambda: len(self.submitted) < len(self.accepted) + 12, DEADLINE)
            key = f"{name}-{number}"
            request = registry_pb2.CreateJobRequest(owner="ada", idempotency_key=key, spec=spec())
            self.submitted[key] = self.asked(self.registry.CreateJob, request).job.id

    def lease(self, name) -> None:
        request = registry_pb2.LeaseRequest(scheduler_id=name, max_jobs=3, lease=duration(2.0))
        while not self.done:
            # Offers whose answer is lost come again when they have expired.
            for offer in self.asked(self.registry.Lease, request).offers:
                self.offers.put(offer)
            eventually(lambda: self.offers.qsize() < 6 or self.done, DEADLINE)

    def run(self, name) -> None:
        while not self.done:
            try:
                offer = self.offers.get(timeout=0.2)
            except queue.Empty:
                continue
            self._run(offer, name)

    def _run(self, offer, name) -> None:
        runner_id = str(uuid.uuid4())
        claim = registry_pb2.Claim(job_id=offer.job_id, fence=offer.fence)
        begin = registry_pb2.BeginRequest(
            claim=claim,
            attempt=offer.attempt,
            runner_id=runner_id,
            manager_id=name,
            lease=duration(60.0),
        )
        try:
            claim.fence = self.asked(self.registry.Begin, begin).fence
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return
        self.begun.append((offer.job_id, offer.attempt, runner_id))
        report = registry_pb2.ReportRequest(
            items=[
                registry_pb2.ReportRequest.Item(
                    claim=claim,
                    runner_id=runner_id,
                    outcome=Outcome.OUTCOME_SUCCEEDED,
                    manifest=manifest(offer.attempt, runner_id),
                )
            ]
        )
        (item,) = self.asked(self.registry.Report, report).items
        if item.accepted:
            self.accepted.append((offer.job_id, runner_id))

    def follow(self, _name) -> None:
        """The history as it grows, to its end."""
        last = 0
        succeeded = 0
        while succeeded < JOBS:
            request = registry_pb2.ChangesRequest(after=last, wait=duration(1.0))
            answer = self.asked(self.registry.Changes, request)
            self.followed += answer.events
            succeeded += sum(event.state == job_pb2.STATE_SUCCEEDED for event in answer.events)
            last = answer.last


def test_what_was_acknowledged_outlives_the_store_and_is_there_once(
    registries, directories, own_postgres
):
    for number in (1, 2):
        registries.start("registry", number)
    with directories().channel("registry") as channel, ThreadPoolExecutor(7) as pool:
        work = Work(registry_pb2_grpc.RegistryStub(channel))
        roles = [work.submit, work.submit, work.lease, work.lease, work.run, work.run, work.follow]
        working = [pool.submit(role, f"{role.__name__}-{at}") for at, role in enumerate(roles)]
        for mark in DEATHS:
            eventually(lambda mark=mark: len(work.accepted) >= mark, DEADLINE, f"{mark} results")
            own_postgres.kill()
            # Somebody has to notice, or it was no outage.
            while work.refused.acquire(blocking=False):
                pass
            assert work.refused.acquire(timeout=DEADLINE)
            own_postgres.start()
        for each in working:
            each.result(DEADLINE)
    assert len(work.submitted) == JOBS

    store = Store(own_postgres.url)
    hands = Hands(store)
    assert hands.registry.counts("") == {job_pb2.STATE_SUCCEEDED: JOBS}
    starts = Counter()
    results = dict(work.accepted)
    assert len(results) == len(work.accepted) == JOBS
    assert sorted(results) == sorted(work.submitted.values())
    for key, job_id in work.submitted.items():
        job = hands.job(job_id)
        assert job.idempotency_key == key
        outcomes = {each.runner_id: each.outcome for each in job.attempts}
        assert [runner for runner in outcomes if outcomes[runner] == "succeeded"] == [
            results[job_id]
        ]
        assert job.manifest.runner_id == results[job_id]
        starts.update((job_id, each.number, each.runner_id) for each in job.attempts)
    assert set(work.begun) <= set(starts)
    written, _ = hands.registry.changes(0, 10_000)
    # Followers saw every event, in its order, and none twice.
    assert [event.seq for event in work.followed] == [event.seq for event in written]
    store.close()


def test_a_registry_that_starts_before_its_store_serves_when_that_is_up(registries, own_postgres):
    own_postgres.stop()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(registries.start, "registry", 1)
        log = registries.root / "registry-1.log"
        eventually(lambda: log.exists() and "waits for" in log.read_text(), what="a word of it")
        assert not starting.done()
        own_postgres.start()
        assert starting.result(DEADLINE) == "registry-1"


def test_a_registry_whose_store_stays_away_says_so_and_ends(registries, own_postgres):
    own_postgres.stop()
    with pytest.raises(AssertionError, match=r"can't be reached; see that it runs"):
        registries.start("registry", 1, "--store-wait", "0.5")
    assert registries.processes["registry-1"].wait(30) == 1
