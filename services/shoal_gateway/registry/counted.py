"""Jobs by state, for those who look at them all the time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from shoal_gateway.registry.rules import state_name
from shoal_protos.gateway.model.v1 import job_pb2

logger = logging.getLogger(__name__)

# Seconds for which a count is good: it goes through an index of all jobs.
GOOD_FOR = 5.0
# Seconds after which it is told to nobody: the store has not answered since.
OLD = 60.0

Counts = list[tuple[tuple[str], float]]


class Counted:
    """Counts jobs, not more often than is good for the store.

    On a thread of its own: who looks reads all of a process's metrics, and must not wait for a
    store that stands still.

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
        self._counting = False
        self._at = float("-inf")
        self._found: Counts = []

    def __call__(self) -> Counts:
        """Every state, those of no job too, and how many jobs were in it at the last count.

        Nothing before the first one, which this begins.
        """
        with self._lock:
            age = self._clock() - self._at
            if age >= GOOD_FOR and not self._counting:
                self._counting = True
                threading.Thread(target=self._recount, name="job counts", daemon=True).start()
            return self._found if age < OLD else []

    def _recount(self) -> None:
        try:
            # As old as the question, however long the answer takes.
            at = self._clock()
            counts = self._count("")
            found: Counts = [
                ((state_name(state),), counts.get(state, 0)) for state in job_pb2.State.values()[1:]
            ]
            with self._lock:
                self._found, self._at = found, at
        except Exception:
            logger.exception("jobs can't be counted")
        finally:
            with self._lock:
                self._counting = False
