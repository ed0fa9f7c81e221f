"""A function that is to be called: one attempt, from its begin to its report."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from shoal_gateway import jobtraces, traceparents
from shoal_gateway.appmanager import worker
from shoal_gateway.appmanager.attempt import RUNNER_MARK, Attempt, Spec
from shoal_gateway.appmanager.offers import Offer
from shoal_gateway.appmanager.ports import Lease
from shoal_gateway.appmanager.shipping import LogShipper
from shoal_gateway.objectstore import ObjectStore


class Call:
    """An attempt at a function.

    Unlike a command's it has no directory of its own and nothing to adopt: it ends with its
    manager, and its lease runs out.

    Attributes:
        offer: What was offered.
        runner_id: A UUID for this start.
        fence: Under which it reports.
        cancelled: Whether its owner wants its end.
        lost: Whether somebody else has the job.
        since: When it was begun, monotonic seconds.
        span: In its job's trace; told of when it was reported.
        called: When a worker got it, monotonic seconds; None before that.
        pid: Process of its worker; 0 before that.
        ended: Whether it is over and only its report is under way.
    """

    def __init__(self, offer: Offer, application: Path, ledger: Path) -> None:
        self.offer = offer
        self.runner_id = str(uuid.uuid4())
        self.fence = 0
        self.cancelled = False
        self.lost = False
        self.ended = False
        self.since = time.monotonic()
        self.span = jobtraces.begin(offer.trace_context)
        self.called: float | None = None
        self.pid = 0
        self._application = application
        self._ledger = ledger
        self._logs: LogShipper | None = None
        self._shipping = threading.Lock()

    def __repr__(self) -> str:
        return f"<Call {self.offer.function} {self.offer.job_id} {self.offer.attempt}>"

    @property
    def lease(self) -> Lease:
        """As the registry knows it."""
        return Lease(self.offer.job_id, self.runner_id, self.fence)

    @property
    def who(self) -> dict[str, object]:
        """How ledgers name it."""
        offer = self.offer
        return {"job_id": offer.job_id, "attempt": offer.attempt, "runner_id": self.runner_id}

    def message(self) -> bytes:
        """What its worker is told."""
        offer = self.offer
        content = {
            "application": str(self._application),
            "function": offer.function,
            "parameters": dict(offer.parameters),
            "environment": self._environment(),
            "memory_mib": offer.memory_mib,
            "result": worker.RESULT in offer.outputs,
        }
        return json.dumps(content).encode() + b"\n"

    def overran(self, now: float) -> bool:
        """Whether it has been running longer than it may."""
        limit = self.offer.wall_seconds
        return self.called is not None and 0.0 < limit <= now - self.called

    def attempt(self, directory: Path, uid: int = 0) -> Attempt:
        """As those see it who fetch what it wrote into its worker's directory."""
        offer = self.offer
        spec = Spec(
            job_id=offer.job_id,
            attempt=offer.attempt,
            runner_id=self.runner_id,
            command=(offer.function,),
            environment={},
            outputs=offer.outputs,
            wall_seconds=offer.wall_seconds,
            memory_mib=offer.memory_mib,
            ledger=str(self._ledger),
            uid=uid,
        )
        return Attempt(directory, spec)

    def cancel(self, fence: int) -> None:
        """Its owner wants its end; its report goes out under a fence of its own."""
        self.fence = fence
        self.cancelled = True

    def disown(self) -> None:
        """Somebody else has the job."""
        self.lost = True

    def ship_logs(self, directory: Path, objects: ObjectStore, *, last: bool) -> None:
        """Uploads what it has written since the last time.

        Args:
            directory: Its worker's.
            objects: Where to.
            last: Whether it has ended; else nothing is done if it has, for what its worker writes
                may be another call's by now.

        Raises:
            ObjectStoreError: the store failed; the next call tries the same again.
            OSError: its output can't be read.
        """
        with self._shipping:
            if self.ended and not last:
                return
            if self._logs is None:
                self._logs = LogShipper(self.attempt(directory), objects)
            self._logs.ship()

    def _environment(self) -> Mapping[str, str]:
        return {
            "SHOAL_JOB_ID": self.offer.job_id,
            "SHOAL_ATTEMPT": str(self.offer.attempt),
            RUNNER_MARK: self.runner_id,
            # Also where there is none, for its worker had another call before.
            traceparents.VARIABLE: self.span.own,
        }
