"""Jobs by state, for those who look at them all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from shoal_gateway.registry.rules import state_name
from shoal_protos.gateway.model.v1 import job_pb2

# Seconds for which a count is good: it goes through an index of all jobs.
GOOD_FOR = 5.0


class Counted:
    """Counts jobs, not more often than is good for the store.

    Args:
        count: Gives the number of jobs by state, of an owner or of all.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, count: Callable[[str], Mapping[int, int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._clock = clock
        self._lock = threading.Lock()
        self._at: float | None = None
        self._found: list[tuple[tuple[str], float]] = []

    def __call__(self) -> list[tuple[tuple[str], float]]:
        """Every state, those of no job too, and how many jobs are in it."""
        with self._lock:
            now = self._clock()
            if self._at is None or now - self._at >= GOOD_FOR:
                counts = self._count("")
                self._found = [
                    ((state_name(state),), counts.get(state, 0))
                    for state in job_pb2.State.values()[1:]
                ]
                self._at = now
            return self._found
