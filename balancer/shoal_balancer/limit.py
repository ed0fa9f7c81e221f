"""How many calls a server takes at once: a fixed number, or one that follows its latency.

Decisions only: who counts the calls and turns some away is the server. Latencies and times are
seconds, monotonic. A limiter is told of calls by several threads; the lock is passed in.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

Lock = AbstractContextManager[object]


# How many times the limit a call may find taken that others have turned away before.
MOST_ROOM = 2.0


def room(limit: int, attempt: int) -> int:
    """Places at a limit for a call that comes for the ``attempt``-th time, the first being 1.

    Each time it was turned away it gets in half a limit more easily, up to twice the limit. So the
    first replicas of the list of one call may be choosy, which evens queues out better than any
    caller's knowledge could, and where all are full calls don't wander for long.

    Source: the threshold policy of Eager, Lazowska, Zahorjan, "Adaptive Load Sharing in Homogeneous
    Distributed Systems" (1986); the steps are from docs/simulation.md.
    """
    return int(limit * min(MOST_ROOM, 1.0 + 0.5 * (attempt - 1)))


class Limiter(Protocol):
    """A limit as it is now."""

    @property
    def limit(self) -> int:
        """Most calls at once."""

    @property
    def pushback(self) -> float:
        """Seconds after which somebody who was turned away may find room."""

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        """A call ended after ``latency``; ``in_flight`` calls were under way when it began."""


class Limit(Protocol):
    """What a server is given: it makes the limiter."""

    def limiter(self, lock: Lock) -> Limiter:
        """A limiter of the server's own."""


@dataclass(frozen=True, slots=True)
class FixedLimit:
    """Always the same number of calls.

    Attributes:
        limit: Most calls at once.
        pushback: Seconds that callers who are turned away are asked to stay away.

    Raises:
        ValueError: ``limit`` is below 1 or ``pushback`` negative.
    """

    limit: int
    pushback: float = 0.1

    def __post_init__(self) -> None:
        if self.limit < 1 or not self.pushback >= 0.0:
            raise ValueError(f"a limit is at least 1 and a pushback at least 0, not {self!r}")

    def limiter(self, lock: Lock) -> FixedLimit:  # noqa: ARG002 - nothing to guard
        """Itself: it has no state."""
        return self

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        """Nothing to learn."""


@dataclass(frozen=True, slots=True)
class AdaptiveLimit:
    """As many calls as go through without queueing, found from their latency; see `Gradient2`.

    Source: Netflix concurrency-limits, ``Gradient2Limit`` behind a ``WindowedLimit``. Its defaults,
    but for ``initial`` and ``least``: there 20, more than most Python servers run at once.

    Attributes:
        initial: The limit to begin with.
        least: The limit never falls below this.
        most: Nor rises above this.
        tolerance: How many times its usual the latency may be before the limit is lowered.
        queue: Calls that may wait, beyond those that run at the usual latency: by so much the limit
            grows in one step while latency stays low.
        smoothing: Share of each new estimate that is taken over, above 0 to 1.
        long: Windows that the usual latency is averaged over.
        window: Seconds whose calls make one measurement.
        samples: Fewest calls that make one; with fewer the window goes on.

    Raises:
        ValueError: a value is out of its range.
    """

    initial: int = 10
    least: int = 4
    most: int = 200
    tolerance: float = 1.5
    queue: int = 4
    smoothing: float = 0.2
    long: int = 600
    window: float = 1.0
    samples: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.initial <= self.most:
            raise ValueError(
                "1 <= least <= initial <= most does not hold: "
                f"{self.least!r}, {self.initial!r}, {self.most!r}"
            )
        if not self.tolerance >= 1.0:
            raise ValueError(f"tolerance must be at least 1, not {self.tolerance!r}")
        if not 0.0 < self.smoothing <= 1.0:
            raise ValueError(f"smoothing must lie above 0 and up to 1, not {self.smoothing!r}")
        if self.queue < 0 or self.long < 1 or not self.window > 0.0 or self.samples < 1:
            raise ValueError(f"queue, long, window or samples are too low: {self!r}")

    def limiter(self, lock: Lock) -> Windowed:
        """A limiter at its initial limit."""
        return Windowed(self, lock)


class Average:
    """A moving average over so many samples, which begins as their mean.

    Source: Netflix ``ExpAvgMeasurement``: weight 2 / (n + 1), mean of the first 10.
    """

    __slots__ = ("_count", "_factor", "value")

    WARMUP = 10

    def __init__(self, samples: int) -> None:
        self.value = 0.0
        self._count = 0
        self._factor = 2.0 / (samples + 1)

    def add(self, sample: float) -> float:
        """Takes a sample in; the average."""
        if self._count < self.WARMUP:
            self._count += 1
            self.value += (sample - self.value) / self._count
        else:
            self.value += (sample - self.value) * self._factor
        return self.value


class Gradient2:
    """The limit from the gradient between the latency now and the usual one.

    While calls take no more than ``tolerance`` times the usual, the limit grows by ``queue`` a
    step (smoothed); when they take longer, they queue, and it shrinks in proportion, by at most a
    half a step. It does not grow while fewer than half of its places are taken: then latency says
    nothing about what the server could bear.

    An overload that lasts as long as the usual is averaged over (ten minutes by default) becomes
    the usual, and the limit rises with it. So ``most`` is a bound to be chosen, not a formality.

    Source: Netflix concurrency-limits, ``Gradient2Limit._update``.
    """

    __slots__ = ("_estimate", "_rule", "_usual", "latency")

    def __init__(self, rule: AdaptiveLimit) -> None:
        self.latency = 0.0
        self._rule = rule
        self._estimate = float(rule.initial)
        self._usual = Average(rule.long)

    def __repr__(self) -> str:
        return f"Gradient2(limit={self.limit}, latency={self.latency:g}, usual={self.usual:g})"

    @property
    def limit(self) -> int:
        """Most calls at once."""
        return int(self._estimate)

    @property
    def usual(self) -> float:
        """The latency's average over a long time, seconds."""
        return self._usual.value

    def update(self, latency: float, in_flight: int) -> None:
        """Takes a measurement in.

        Args:
            latency: Seconds that calls take now, above 0.
            in_flight: Calls that were under way meanwhile.
        """
        rule = self._rule
        self.latency = latency
        usual = self._usual.add(latency)
        if usual > 2.0 * latency:
            # The load is over; without this the average would take long to come down to it, and
            # would let a queue pass for the usual until then.
            self._usual.value *= 0.95
        estimate = self._estimate
        if in_flight < estimate / 2.0:
            return
        gradient = max(0.5, min(1.0, rule.tolerance * usual / latency))
        target = estimate * gradient + rule.queue
        estimate += (target - estimate) * rule.smoothing
        self._estimate = max(float(rule.least), min(float(rule.most), estimate))


class Windowed:
    """`Gradient2`, told of the mean of many calls rather than of each.

    Single calls differ for reasons of their own; the mean of a window differs with the load.

    Source: Netflix ``WindowedLimit`` (1 s, 10 samples, calls below 0.1 ms passed over).
    """

    __slots__ = ("_count", "_end", "_gradient", "_lock", "_peak", "_rule", "_sum")

    # Calls that took less, in seconds, did nothing that load could slow down.
    FLOOR = 1e-4
    # Between these a pushback lies, seconds: callers need time to come back, and patience ends.
    SOONEST, LATEST = 0.01, 1.0

    def __init__(self, rule: AdaptiveLimit, lock: Lock) -> None:
        self._rule = rule
        self._gradient = Gradient2(rule)
        self._lock = lock
        self._count = 0
        self._sum = 0.0
        self._peak = 0
        self._end: float | None = None

    def __repr__(self) -> str:
        return f"Windowed({self._gradient!r})"

    @property
    def limit(self) -> int:
        """Most calls at once."""
        return self._gradient.limit

    @property
    def pushback(self) -> float:
        """About the time that a call takes now: by then those under way have made room."""
        return max(self.SOONEST, min(self.LATEST, self._gradient.latency))

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        """Takes a call in; the limit changes with the last one of a window."""
        if latency < self.FLOOR:
            return
        with self._lock:
            if self._end is None:
                self._end = now + self._rule.window
            self._count += 1
            self._sum += latency
            self._peak = max(self._peak, in_flight)
            if now < self._end or self._count < self._rule.samples:
                return
            mean, peak = self._sum / self._count, self._peak
            self._count, self._sum, self._peak = 0, 0.0, 0
            self._end = now + self._rule.window
            self._gradient.update(mean, peak)
