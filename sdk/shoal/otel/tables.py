"""Counts and durations as they are taken: cheap to write down, added up when somebody reads them.

OpenTelemetry's own instruments hash their labels and take a lock for each value: 9 µs in Python,
and a call has four or five of them. Here a call finds its series ready and appends a number, which
is one atomic operation: none is lost between threads. What was appended is added up by the reader,
or by the call that finds too much of it.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

# gRFC A66 and A96 name these.
SECONDS = (
    0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006,
    0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2,
    0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
)  # fmt: skip
BYTES = (0.0, *(float(4**power) for power in range(5, 17)))
RETRIES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)

# Values that wait to be added up, of one series; beyond them the next call does it.
MOST_WAITING = 4096
# Series of one instrument; what comes beyond goes into one that says so.
MOST_SERIES = 2000
OVERFLOW = ("otel.metric.overflow", True)

Labels = tuple[tuple[str, str | bool], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """What the values of one set of labels come to, at one moment."""

    labels: Labels
    count: int
    total: float
    least: float
    largest: float
    buckets: tuple[int, ...]


class Series:
    """The values of one set of labels."""

    __slots__ = (
        "_adding",
        "_bounds",
        "_buckets",
        "_count",
        "_largest",
        "_least",
        "_total",
        "_waiting",
        "labels",
    )  # fmt: skip

    def __init__(self, labels: Labels, bounds: Sequence[float]) -> None:
        self.labels = labels
        self._bounds = bounds
        self._count = 0
        self._total = 0.0
        self._least = float("inf")
        self._largest = float("-inf")
        self._buckets = [0] * (len(bounds) + 1)
        self._waiting: deque[float] = deque()
        self._adding = threading.Lock()

    def add(self, value: float) -> None:
        """Writes a value down; it waits for nobody."""
        waiting = self._waiting
        waiting.append(value)
        if len(waiting) > MOST_WAITING and self._adding.acquire(blocking=False):
            try:
                self._add_up()
            finally:
                self._adding.release()

    def settle(self) -> Point:
        """Adds up what waits, and says what it comes to; what comes meanwhile is for the next."""
        with self._adding:
            self._add_up()
            return Point(
                self.labels,
                self._count,
                self._total,
                self._least,
                self._largest,
                tuple(self._buckets),
            )

    def _add_up(self) -> None:
        waiting = self._waiting
        for _ in range(len(waiting)):
            value = waiting.popleft()
            self._count += 1
            self._total += value
            self._least = min(self._least, value)
            self._largest = max(self._largest, value)
            if self._bounds:
                self._buckets[bisect_left(self._bounds, value)] += 1


class Instrument:
    """What is measured, by its labels.

    Args:
        name: OpenTelemetry's.
        unit: In UCUM: "s", "By", "{call}".
        description: For people.
        names: Of its labels.
        bounds: Of its buckets; none: it is a sum.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        description: str,
        names: Sequence[str] = (),
        bounds: Sequence[float] = (),
    ) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.names = tuple(names)
        self.bounds = tuple(bounds)
        self.since = time.time_ns()
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], Series] = {}
        self._overflow: Series | None = None

    def __repr__(self) -> str:
        return f"<Instrument {self.name} {len(self._series)} series>"

    def of(self, *values: str) -> Series:
        """The series of these labels' values; to be kept by who writes often."""
        found = self._series.get(values)
        if found is None:
            with self._lock:
                found = self._series.get(values)
                if found is None:
                    found = self._new(values)
        return found

    def settled(self) -> list[Point]:
        """All series, added up."""
        with self._lock:
            found = list(self._series.values())
            if self._overflow is not None:
                found.append(self._overflow)
        return [each.settle() for each in found]

    def _new(self, values: tuple[str, ...]) -> Series:
        if len(self._series) < MOST_SERIES:
            labels: Labels = tuple(zip(self.names, values, strict=True))
            made = self._series[values] = Series(labels, self.bounds)
            return made
        # Not kept under its labels: what has no end must not be remembered.
        if self._overflow is None:
            self._overflow = Series((OVERFLOW,), self.bounds)
        return self._overflow


class Gauge:
    """What is looked at when somebody reads it.

    Args:
        name: OpenTelemetry's.
        unit: In UCUM.
        description: For people.
        names: Of its labels.
        look: Gives (values of the labels, number).
        grows: Whether it only grows, and is a counter to those who read it.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        description: str,
        names: Sequence[str],
        look: Callable[[], Iterable[tuple[Sequence[str], float]]],
        *,
        grows: bool = False,
    ) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.names = tuple(names)
        self.look = look
        self.grows = grows
        self.since = time.time_ns()


class Tables:
    """All that is measured in a process."""

    def __init__(self) -> None:
        self.instruments: list[Instrument] = []
        self.gauges: list[Gauge] = []

    def sum(self, name: str, unit: str, description: str, *names: str) -> Instrument:
        """Adds a counter."""
        return self._added(Instrument(name, unit, description, names))

    def spread(
        self, name: str, unit: str, description: str, bounds: Sequence[float], *names: str
    ) -> Instrument:
        """Adds a histogram."""
        return self._added(Instrument(name, unit, description, names, bounds))

    def watch(self, gauge: Gauge) -> None:
        """Adds what is looked at when it is read."""
        self.gauges.append(gauge)

    def _added(self, made: Instrument) -> Instrument:
        self.instruments.append(made)
        return made
