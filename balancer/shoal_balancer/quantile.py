"""A quantile of recent latencies, from counts in buckets: no sample is kept, nothing is sorted."""

from __future__ import annotations

import math

# Buckets grow by a tenth from a microsecond to half an hour: that far a quantile may be off.
GROWTH = 1.1
SMALLEST = 1e-6
COUNT = 224

_BY_LOG = 1.0 / math.log(GROWTH)


class Quantile:
    """A quantile over this window and the one before it.

    Recorded by several threads without a lock: a lost count moves nothing that matters.

    Args:
        share: Which one, above 0 and below 1: 0.99 is what 99 of 100 calls don't exceed.
        window: Seconds; what is older than two of them is forgotten.
        volume: Calls in those windows without which there is no answer.
    """

    def __init__(self, share: float, *, window: float = 30.0, volume: int = 100) -> None:
        if not 0.0 < share < 1.0:
            raise ValueError(f"share must be above 0 and below 1, not {share!r}")
        self.share = share
        self.window = window
        self.volume = volume
        self._began = -math.inf
        self._now: list[int] = [0] * COUNT
        self._before: list[int] = [0] * COUNT

    def record(self, latency: float, now: float) -> None:
        """A call took ``latency`` seconds and ended at ``now``."""
        if now - self._began >= self.window:
            self._turn(now)
        index = int(math.log(max(latency, SMALLEST) / SMALLEST) * _BY_LOG)
        self._now[min(index, COUNT - 1)] += 1

    def value(self, now: float) -> float | None:
        """Seconds, rounded up to a bucket's end; None while too few calls are known."""
        if now - self._began >= self.window:
            self._turn(now)
        counts = [one + other for one, other in zip(self._now, self._before, strict=True)]
        total = sum(counts)
        if total < self.volume:
            return None
        wanted = self.share * total
        seen = 0
        for index, count in enumerate(counts):
            seen += count
            if seen >= wanted:
                return SMALLEST * GROWTH ** (index + 1)
        raise AssertionError("counts changed between two looks")

    def _turn(self, now: float) -> None:
        fresh = now - self._began < 2.0 * self.window
        self._before = self._now if fresh else [0] * COUNT
        self._now = [0] * COUNT
        self._began = now
