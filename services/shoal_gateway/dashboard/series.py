"""What is drawn over time: buckets of one second, the last few minutes of them. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# Seconds that are kept.
KEPT = 600


@dataclass(slots=True)
class Bucket:
    """One second.

    Attributes:
        at: Its second since 1970.
        submitted: Jobs written down in it.
        succeeded: Jobs that succeeded in it.
        failed: Jobs that ended otherwise.
        requeued: Jobs that went back into the queue: an attempt was lost or is repeated.
        durations: Of the jobs that succeeded, submit to end, seconds.
        calls: Calls between replicas a second.
        failures: Those of them that failed.
        latency: Mean latency of those calls, seconds; None without calls.
    """

    at: int
    submitted: int = 0
    succeeded: int = 0
    failed: int = 0
    requeued: int = 0
    durations: list[float] = field(default_factory=list)
    calls: float | None = None
    failures: float | None = None
    latency: float | None = None

    def row(self) -> list[float | None]:
        """For the page; see `COLUMNS`."""
        p50, p95 = (quantile(self.durations, share) for share in (0.5, 0.95))
        numbers = (self.calls, self.failures, self.latency, p50, p95)
        rounded = [None if each is None else round(each, 6) for each in numbers]
        return [self.at, self.submitted, self.succeeded, self.failed, self.requeued, *rounded]


COLUMNS = (
    "at",
    "submitted",
    "succeeded",
    "failed",
    "requeued",
    "calls",
    "failures",
    "latency",
    "p50",
    "p95",
)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that ``share`` of the values do not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Series:
    """The buckets, without a gap between the first and the last.

    Args:
        start: The first second.
        kept: How many seconds.
    """

    def __init__(self, start: int, kept: int = KEPT) -> None:
        self._buckets: deque[Bucket] = deque([Bucket(start)], maxlen=kept)

    def at(self, second: int) -> Bucket:
        """The bucket of a second; the oldest one for what is older than all."""
        while self._buckets[-1].at < second:
            self._buckets.append(Bucket(self._buckets[-1].at + 1))
        index = second - self._buckets[0].at
        return self._buckets[max(0, index)]

    def rows(self, since: int = 0) -> list[list[float | None]]:
        """The buckets from a second on, for the page."""
        return [each.row() for each in self._buckets if each.at >= since]


class JobTimes:
    """Turns job events into buckets: when jobs were submitted and ended, and how long that took.

    Args:
        series: Where they are counted.
        wall: Seconds since 1970; nothing is counted later, for clocks of stores may be ahead.
        most: Jobs in flight that are remembered; of others no duration is known.
    """

    def __init__(self, series: Series, wall: Callable[[], float], most: int = 100_000) -> None:
        self._series = series
        self._wall = wall
        self._most = most
        self._submitted: dict[str, float] = {}
        self._running: set[str] = set()

    def note(self, job_id: str, state: str, at: float) -> None:
        """A job entered a state, at a time in seconds since 1970."""
        bucket = self._series.at(int(min(at, self._wall())))
        match state:
            case "SUBMITTED":
                bucket.submitted += 1
                if len(self._submitted) < self._most:
                    self._submitted[job_id] = at
            case "RUNNING":
                self._running.add(job_id)
            case "QUEUED":
                # One that only waited for room goes back without having run.
                bucket.requeued += job_id in self._running
                self._running.discard(job_id)
            case "SUCCEEDED":
                bucket.succeeded += 1
                began = self._ended(job_id)
                if began is not None:
                    bucket.durations.append(max(0.0, at - began))
            case "FAILED" | "DEAD" | "CANCELLED":
                bucket.failed += 1
                self._ended(job_id)
            case _:
                pass  # LEASED says nothing of rates

    def _ended(self, job_id: str) -> float | None:
        self._running.discard(job_id)
        return self._submitted.pop(job_id, None)
