"""A steady stream of plain calls beside an experiment's jobs: do callers notice anything?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import grpc

# Calls per second; few enough to cost two cores nothing, enough to see half a second.
RATE = 20.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One call.

    Attributes:
        at: Monotonic time of its begin.
        seconds: Until its answer.
        failure: Code and details; empty when it was answered well.
    """

    at: float
    seconds: float
    failure: str = ""


class Prober:
    """Calls one after the other, on a thread of its own, as long as the context lasts.

    What else goes wrong than a call ends the probing, and is raised where the context ends.

    Args:
        call: Makes one; raises `grpc.RpcError` when it fails.
        rate: Calls begun per second, where they are answered in time.
    """

    def __init__(self, call: Callable[[], object], rate: float = RATE) -> None:
        self._call = call
        self._between = 1.0 / rate
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._guarded, name="prober", daemon=True)
        self.probes: list[Probe] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - raised where the context ends
            self._error = error

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            at = time.monotonic()
            failure = ""
            try:
                self._call()
            except grpc.RpcError as error:
                failure = f"{error.code().name}: {error.details()}"
            now = time.monotonic()
            self.probes.append(Probe(at, now - at, failure))
            # A slow answer puts the next ones off: no burst makes up for it.
            due = max(at + self._between, now)
