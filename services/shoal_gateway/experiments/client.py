"""The experiment's user: submits at given times, follows to the ends, and writes down both."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc

from shoal_gateway.client import TERMINAL, Gateway, state_name
from shoal_gateway.convert import unix
from shoal_gateway.experiments.history import History
from shoal_gateway.experiments.workload import Task
from shoal_protos.gateway.model.v1 import job_pb2

logger = logging.getLogger(__name__)

# Submits at once: arrivals don't wait for the answers of those before them.
AT_ONCE = 32
# Between two tries of one submit, seconds, and how long it is tried.
AGAIN = 0.5
PERSISTENCE = 120.0


class Client:
    """Submits jobs and follows them.

    A submit that fails is sent again with its key, as a user's script would do it; what was
    acknowledged is never submitted again.

    Args:
        gateway: Where to.
        history: Of everything.
        inputs: Stored input files by name.
    """

    def __init__(
        self, gateway: Gateway, history: History, inputs: Mapping[str, job_pb2.ObjectRef]
    ) -> None:
        self._gateway = gateway
        self._history = history
        self._inputs = inputs
        self._lock = threading.Lock()
        self._all = threading.Event()
        self._error: Exception | None = None
        self._expected = 0
        # Ids whose end was told before their submit was answered, and the other way round.
        self._told: set[str] = set()
        self._waiting: set[str] = set()
        self._ended = 0
        self.acknowledged: dict[str, str] = {}

    def start(self, tasks: Sequence[Task], at: Sequence[float]) -> None:
        """Begins to submit each task at its time, in seconds from now, and to follow them all."""
        self._expected = len(tasks)
        for work, name in (
            (lambda: self._submit_all(tasks, at), "submitter"),
            (self._follow, "follower"),
        ):
            threading.Thread(target=self._guarded, args=[work], name=name, daemon=True).start()

    @property
    def ended(self) -> int:
        """Acknowledged jobs whose end was told."""
        return self._ended

    def wait(self, timeout: float, progress: Callable[[int, int], None]) -> None:
        """Waits for all ends.

        Raises:
            TimeoutError: some had not ended in time; the history says which.
            Exception: what went wrong in submitting or following.
        """
        until = time.monotonic() + timeout
        while not self._all.wait(0.5):
            progress(self.ended, self._expected)
            if self._error is not None:
                raise self._error
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{self._expected - self.ended} of {self._expected} jobs had not ended after "
                    f"{timeout:g} s"
                )
        progress(self._expected, self._expected)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised where somebody waits
            self._error = error

    def _submit_all(self, tasks: Sequence[Task], at: Sequence[float]) -> None:
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="submit") as pool:
            under_way = []
            for task, moment in zip(tasks, at, strict=True):
                pause = began + moment - time.monotonic()
                if pause > 0.0:
                    time.sleep(pause)  # the arrival is a moment, not an event
                under_way.append(pool.submit(self._submit, task))
            for each in under_way:
                each.result()

    def _submit(self, task: Task) -> None:
        note = self._history.note
        note("submit", "client", key=task.key, application=task.application,
             parameters=dict(task.parameters))  # fmt: skip
        until = time.monotonic() + PERSISTENCE
        while True:
            try:
                job = self._gateway.submit(
                    task.application,
                    inputs={name: self._inputs[name] for name in task.inputs},
                    parameters=task.parameters,
                    key=task.key,
                )
            except grpc.RpcError as error:
                code = error.code().name
                note("rejected", "client", key=task.key, code=code, details=error.details())
                if time.monotonic() > until:
                    raise
                time.sleep(AGAIN)  # whatever refuses has to recover first
                continue
            with self._lock:
                self.acknowledged[task.key] = job.id
                note("acknowledged", "client", key=task.key, job_id=job.id)
                self._pair(job.id, self._told, self._waiting)
            return

    def _follow(self) -> None:
        for event in self._gateway.watch():
            if event.state not in TERMINAL:
                continue
            at = unix(event.at)
            state = state_name(event.state)
            with self._lock:
                self._history.note(
                    "terminal", "client", job_id=event.job_id, state=state, seq=event.seq, at=at
                )
                self._pair(event.job_id, self._waiting, self._told)
            if self._all.is_set():
                return

    def _pair(self, job_id: str, others: set[str], mine: set[str]) -> None:
        """Counts a job when both its acknowledgement and its end are known."""
        if job_id not in others:
            mine.add(job_id)
            return
        others.remove(job_id)
        self._ended += 1
        if self._ended == self._expected:
            self._all.set()
