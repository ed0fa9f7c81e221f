"""After a run: what hosts and store say of it, and every published file, go beside the history."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from shoal_gateway.client import ChecksumError, Gateway, state_name
from shoal_gateway.convert import unix
from shoal_gateway.experiments.history import History
from shoal_gateway.fleet.layout import Layout

logger = logging.getLogger(__name__)

# Jobs that are fetched at once.
AT_ONCE = 8


def ledgers(place: Layout, history: History) -> None:
    """Copies the hosts' ledgers, those of lost hosts too."""
    for path in place.ledgers():
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            history.note(entry.pop("event"), "host", host=path.parent.name, **entry)


def records(
    gateway: Gateway,
    history: History,
    job_ids: Iterable[str],
    outputs: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Writes down how each job stands, and fetches what it published to ``outputs``/JOB/FILE."""
    wanted = sorted(set(job_ids))

    def look(job_id: str) -> dict[str, Any] | None:
        return _record(gateway, job_id, outputs)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool:
        for done, record in enumerate(pool.map(look, wanted), start=1):
            if record is not None:
                history.note("record", "store", **record)
            progress(done, len(wanted))


def _record(gateway: Gateway, job_id: str, outputs: Path) -> dict[str, Any] | None:
    try:
        found = gateway.get(job_id)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None  # the checker finds it absent
        raise
    job = found.job
    record: dict[str, Any] = {
        "job_id": job_id,
        "key": job.idempotency_key,
        "state": state_name(job.state),
        "reason": job.reason,
        "attempts": [
            {
                "number": each.number,
                "runner_id": each.runner_id,
                "fence": each.fence,
                "manager_id": each.manager_id,
                "manager_version": each.manager_version,
                "host": each.host,
                "outcome": each.outcome,
            }
            for each in job.attempts
        ],
        "submitted_at": unix(job.submitted_at),
        "ended_at": unix(job.ended_at),
    }
    manifest = gateway.outputs(job_id) if record["state"] == "SUCCEEDED" else None
    published = sum(state_name(event.state) == "SUCCEEDED" for event in found.events)
    record["publications"] = [manifest.runner_id] * published if manifest else []
    if manifest is None:
        return record
    record["manifest"] = {
        "runner_id": manifest.runner_id,
        "attempt": manifest.attempt,
        "files": {file.name: file.object.sha256 for file in manifest.files},
    }
    for file in manifest.files:
        try:
            gateway.download(job_id, file, outputs / job_id / file.name)
        except (ChecksumError, grpc.RpcError) as error:
            # Not there, so the checker will miss it; here is why.
            logger.warning("job %s: %s can't be fetched as published: %s", job_id, file.name, error)
    return record
