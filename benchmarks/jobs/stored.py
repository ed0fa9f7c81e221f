"""What a job costs beside those that are stored already."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from shoal_gateway.fleet.layout import Layout, project_root
from shoal_gateway.registry.claims import Report, Start
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.rules import Ending
from shoal_gateway.registry.store import Store
from shoal_gateway.registry.submission import Creation
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

BATCH = 1000
FLAVOR = "local"


def fill(directory: Path, jobs: int) -> None:
    """Puts jobs that have SUCCEEDED into a fleet's store, which no fleet has to run for.

    Each goes the way of any job, from its submit to its report, through the registry's own code.

    Args:
        directory: The fleet's.
        jobs: How many.
    """
    place = Layout(directory.absolute(), project_root())
    (place.directory / "store").mkdir(parents=True, exist_ok=True)
    store = Store(place.store("sqlite"))
    try:
        registry = Registry(store)
        for at in range(0, jobs, BATCH):
            _through(registry, min(BATCH, jobs - at))
    finally:
        store.close()


def _through(registry: Registry, jobs: int) -> None:
    spec = job_pb2.JobSpec(
        application="noop@1", flavor=FLAVOR, function="functions:noop", max_attempts=3
    )
    made = registry.create_many(
        [Creation("bench", str(uuid.uuid4()), spec, "noop") for _ in range(jobs)]
    )
    if not all(each.created for each in made):
        raise RuntimeError("a key that was made now was known")
    offers = registry.lease("filler", jobs, 600.0, [FLAVOR])
    starts = [
        Start(each.job_id, each.fence, each.attempt, str(uuid.uuid4()), "filler", "filler")
        for each in offers
    ]
    fences = registry.begin_many(starts, 600.0)
    items = registry.report(list(_reports(starts, fences)))
    if len(items) != jobs or not all(item.accepted for item in items):
        raise RuntimeError("a job could not be brought to its end")


def _reports(starts: Iterable[Start], fences: Iterable[int | str]) -> Iterable[Report]:
    for start, fence in zip(starts, fences, strict=True):
        if isinstance(fence, str):
            raise TypeError(f"a job could not be begun: {fence}")
        manifest = job_pb2.Manifest(attempt=start.attempt, runner_id=start.runner_id)
        ending = Ending(
            registry_pb2.ReportRequest.OUTCOME_SUCCEEDED,
            start.runner_id,
            exit_code=0,
            manifest=manifest,
        )
        yield Report(start.job_id, fence, ending)
