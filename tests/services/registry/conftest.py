"""A registry on a real database of each kind, and hands to move it with."""

from __future__ import annotations

import itertools
import uuid
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from shoal_gateway.errors import UnavailableError
from shoal_gateway.registry import outages
from shoal_gateway.registry.claims import Holding, Report, Start
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.rules import Ending
from shoal_gateway.registry.schema import jobs
from shoal_gateway.registry.store import Store
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

Outcome = registry_pb2.ReportRequest


def spec(**changes) -> job_pb2.JobSpec:
    fields = {
        "application": "nap@1.0",
        "flavor": "local",
        "command": ["{python}", "nap.py"],
        "outputs": ["nap.json"],
        "resources": job_pb2.Resources(wall_seconds=10.0, memory_mib=512),
    }
    return job_pb2.JobSpec(**{**fields, **changes})


def manifest(attempt: int, runner_id: str) -> job_pb2.Manifest:
    key = f"jobs/x/attempt-{attempt}/{runner_id}/outputs/nap.json"
    ref = job_pb2.ObjectRef(key=key, sha256="a" * 64, size=3)
    return job_pb2.Manifest(
        attempt=attempt, runner_id=runner_id, files=[job_pb2.FileRef(name="nap.json", object=ref)]
    )


@contextmanager
def away(words):
    """The store is away: the log has the driver's words why, and callers have not."""
    with pytest.raises(UnavailableError) as caught:
        yield
    assert words in outages.why(caught.value)
    assert words not in str(caught.value)


class Hands:
    """What users, schedulers and managers do, in one line each."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.registry = Registry(store)
        self._keys = itertools.count()

    def submit(self, **changes) -> str:
        job, created = self.registry.create("ada", f"key-{next(self._keys)}", spec(**changes))
        assert created
        return job.id

    def job(self, job_id: str) -> job_pb2.Job:
        return self.registry.get(job_id)[0]

    def lease(self, limit: int = 10, flavors=(), seconds: float = 60.0):
        return self.registry.lease("scheduler-1", limit, seconds, flavors)

    def begin(self, offer, runner_id: str | None = None) -> Holding:
        runner_id = runner_id or str(uuid.uuid4())
        start = Start(offer.job_id, offer.fence, offer.attempt, runner_id, "appmanager-1", "host-1")
        return Holding(offer.job_id, self.registry.begin(start, 60.0), runner_id)

    def running(self, **changes) -> Holding:
        job_id = self.submit(**changes)
        (offer,) = [each for each in self.lease(1000) if each.job_id == job_id]
        return self.begin(offer)

    def again(self, job_id: str) -> Holding:
        (offer,) = [each for each in self.lease(1000) if each.job_id == job_id]
        return self.begin(offer)

    def report(self, holding: Holding, outcome: int, fence: int | None = None, **fields):
        if outcome == Outcome.OUTCOME_SUCCEEDED and "manifest" not in fields:
            fields["manifest"] = manifest(self.job(holding.job_id).attempt, holding.runner_id)
        ending = Ending(outcome, holding.runner_id, **fields)
        fence = holding.fence if fence is None else fence
        (item,) = self.registry.report([Report(holding.job_id, fence, ending)])
        return item

    def renew(self, holding: Holding):
        (item,) = self.registry.renew([holding], 60.0)
        return item

    def expire(self, *job_ids: str) -> None:
        """Lets leases run out: moves their end into the store's past."""
        with self.store.write() as connection:
            connection.execute(
                jobs.update()
                .where(jobs.c.id.in_(job_ids), jobs.c.lease_until.is_not(None))
                .values(lease_until=1.0)
            )

    def count(self, table: sa.Table) -> int:
        with self.store.read() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(table))


@pytest.fixture
def store(store_url):
    made = Store(store_url)
    yield made
    made.close()


@pytest.fixture
def hands(store):
    return Hands(store)
