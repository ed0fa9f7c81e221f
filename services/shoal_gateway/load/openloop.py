"""Submits jobs at their moments, whatever became of those before, and follows all to their ends.

One generator in each process of a Locust run. They start together: each says that it is ready, and
the leading process answers with the moment and with which share of the arrivals is whose.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gevent
import grpc
from gevent.event import Event

import shoal
from shoal.channel import replica_of
from shoal_gateway.client import TERMINAL, state_name
from shoal_gateway.convert import unix
from shoal_gateway.load.arrivals import arrivals, share
from shoal_gateway.load.tracking import Ended, Tracker
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc

logger = logging.getLogger(__name__)

# Seconds for one call, all attempts together.
TIMEOUT = 10.0
# Seconds between tries to follow again when a replica has left.
AGAIN = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What arrives.

    Attributes:
        application: What the jobs are.
        parameters: Its parameters.
        rate: Arrivals per second; 0: all at once.
        count: How many jobs.
        kind: "poisson" or "constant".
        seed: Of the arrivals and of the idempotency keys.
        patience: Seconds from the arrival after which a job has failed, whatever becomes of it.
        drain: Seconds after the last arrival that ends are waited for.
        owner: Whose jobs.
        step: Name of this run in the history.
        history: File that every submit, acknowledgement and end is appended to; None: nowhere.
    """

    application: str
    parameters: dict[str, str]
    rate: float
    count: int
    kind: str
    seed: int
    patience: float
    drain: float
    owner: str
    step: str
    history: Path | None


class History:
    """Appends records; several processes may write to the same file.

    Args:
        path: The file; None: nothing is written.
        step: Goes into each record.
    """

    def __init__(self, path: Path | None, step: str) -> None:
        self._step = step
        self._file = -1
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, kind: str, **facts: Any) -> None:
        """One line, whole: a single write at the file's end can't be torn by another's.

        Args:
            kind: As in ``shoal_checker.history``.
            facts: What happened.
        """
        if self._file < 0:
            return
        record = {"kind": kind, "source": "client", "monotonic": time.monotonic()}
        record |= {"wall": time.time(), "step": self._step, **facts}
        os.write(self._file, json.dumps(record).encode() + b"\n")

    def close(self) -> None:
        """Nothing more is written."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Generator:
    """One process's share of the jobs.

    Args:
        directory: Of the fleet.
        plan: What arrives.
        fire: Told of each submit and each end: name, when it was scheduled (monotonic seconds),
            what was wrong, and the call.
    """

    def __init__(
        self,
        directory: shoal.Directory,
        plan: Plan,
        fire: Callable[[str, float, Exception | None, Any], None],
    ) -> None:
        self._plan = plan
        self._fire = fire
        self._api = api_pb2_grpc.ApiStub(directory.channel("api"))
        self._registry = registry_pb2_grpc.RegistryStub(directory.channel("registry"))
        self._tracker = Tracker()
        self._history = History(plan.history, plan.step)
        # A second run with the same seed makes jobs of its own, which then end while it looks.
        self._run = f"{plan.step[:64]}-{plan.seed}-{uuid.uuid4().hex}"
        self._changed = Event()
        self._cursor = 0
        self._stream: Any = None
        self._over = Event()

    def prepare(self) -> None:
        """Opens the ways in, so that the first arrivals don't pay for it.

        Raises:
            grpc.RpcError: the gateway can't be reached.
            ValueError: it does not know the application.
        """
        catalogue = self._api.Applications(
            api_pb2.ApplicationsRequest(), timeout=TIMEOUT, wait_for_ready=True
        )
        known = {f"{each.name}@{each.version}" for each in catalogue.applications}
        known |= {each.name for each in catalogue.applications}
        if self._plan.application not in known:
            raise ValueError(f"{self._plan.application} is no application: {sorted(known)}")
        request = registry_pb2.ChangesRequest(after=-1, max_events=1)
        changes = self._registry.Changes(request, timeout=TIMEOUT, wait_for_ready=True)
        # From here on, so that no end is missed between two streams.
        self._cursor = changes.last

    def run(self, begin: float, index: int, of: int) -> None:
        """Sends the share and waits for its ends.

        Args:
            begin: The moment of arrival 0, monotonic seconds.
            index: Which of the processes this is, from 0.
            of: How many there are.

        Raises:
            RuntimeError: some had not ended in time, or could not be followed.
        """
        plan = self._plan
        moments = arrivals(plan.rate, plan.count, kind=plan.kind, seed=plan.seed)
        follower = gevent.spawn(self._follow)
        senders = []
        try:
            for number, offset in share(moments, index, of):
                gevent.sleep(max(0.0, begin + offset - time.monotonic()))
                self._tracker.submitted(number, begin + offset)
                senders.append(gevent.spawn(self._send, number, begin + offset))
            self._await_ends(follower, begin + moments[-1] + plan.drain)
            gevent.joinall(senders, raise_error=True)
        finally:
            self._over.set()
            if self._stream is not None:
                self._stream.cancel()
            follower.join(TIMEOUT)
            self._history.close()

    def _await_ends(self, follower: Any, until: float) -> None:
        while self._tracker.open:
            left = until - time.monotonic()
            if left <= 0.0:
                raise RuntimeError(
                    f"{self._tracker.open} jobs had not ended {self._plan.drain:g} s after the "
                    "last arrival"
                )
            if follower.ready():
                raise RuntimeError("the jobs can't be followed any more") from follower.exception
            self._changed.wait(min(left, 1.0))
            self._changed.clear()

    def _send(self, number: int, scheduled: float) -> None:
        plan = self._plan
        key = f"{self._run}-{number}"
        self._history.write(
            "submit",
            number=number,
            key=key,
            scheduled=scheduled,
            application=plan.application,
            parameters=plan.parameters,
        )
        request = api_pb2.SubmitRequest(
            owner=plan.owner,
            idempotency_key=key,
            application=plan.application,
            parameters=plan.parameters,
        )
        try:
            response, call = self._api.Submit.with_call(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            self._tracker.rejected(number)
            self._changed.set()
            self._history.write(
                "rejected",
                number=number,
                key=key,
                code=error.code().name,
                details=error.details(),
            )
            self._fire("submit", scheduled, error, error)
            return
        served = replica_of(call)
        job_id = response.job.id
        self._history.write(
            "acknowledged",
            number=number,
            key=key,
            job_id=job_id,
            replica=served.id if served else None,
        )
        self._fire("submit", scheduled, None, call)
        self._end(self._tracker.acknowledged(number, job_id))

    def _end(self, ended: Ended | None) -> None:
        if ended is None:
            return
        self._history.write("terminal", **asdict(ended))
        failure = ended.failure(self._plan.patience)
        error = RuntimeError(f"a job {failure}") if failure else None
        self._fire("job", ended.scheduled, error, None)
        self._changed.set()

    def _follow(self) -> None:
        while not self._over.is_set():
            request = api_pb2.WatchRequest(after=self._cursor)
            self._stream = self._api.Watch(request, wait_for_ready=True)
            try:
                for response in self._stream:
                    self._note(response.event)
            except grpc.RpcError as error:
                if self._over.is_set():
                    return
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                logger.info("following goes on at another replica: %s", error.details())
            gevent.sleep(AGAIN)

    def _note(self, event: Any) -> None:
        self._cursor = event.seq
        if event.state in TERMINAL:
            recorded = unix(event.at)
            now, state = time.monotonic(), state_name(event.state)
            self._end(self._tracker.ended(event.job_id, state, event.seq, now, recorded))
