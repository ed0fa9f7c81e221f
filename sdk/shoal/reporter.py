"""What a server says of its load with each answer: measured by itself, or told by its handlers."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc

from shoal import orca
from shoal_balancer import LoadReport

logger = logging.getLogger(__name__)

# What handlers may say for a call is kept on its context under this name.
_SAID = "shoal_said"

_OWN = "utilisation"

# Most bytes of a report, which is sent twice in base64: callers take 8 KiB of metadata by default
# and fail the call beyond.
MOST = 2048

Code = grpc.StatusCode

# What counts as an error of the server. Its other answers, a "no" included, are good ones.
_ERRORS = frozenset(
    {
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.UNIMPLEMENTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
    }
)


class Rate:
    """Events a second over a sliding window, in steps of a second.

    Args:
        window: Whole seconds that are looked back on, besides the one that runs.
        now: Seconds, monotonic, as in all that follows.
    """

    __slots__ = ("_began", "_buckets", "_second", "_total", "_window")

    def __init__(self, window: int, now: float) -> None:
        self._window = window
        self._began = now
        self._second = int(now)
        self._buckets = [0] * (window + 1)
        self._total = 0

    def add(self, now: float, count: int = 1) -> None:
        """That many happened."""
        self._turn(now)
        self._buckets[self._second % len(self._buckets)] += count
        self._total += count

    def per_second(self, now: float) -> float:
        """How many a second; a server younger than a second counts as one second old."""
        self._turn(now)
        seconds = min(self._window + now - self._second, max(1.0, now - self._began))
        return self._total / seconds

    def _turn(self, now: float) -> None:
        second = int(now)
        if second <= self._second:
            return
        size = len(self._buckets)
        for passed in range(self._second + 1, min(second, self._second + size) + 1):
            self._total -= self._buckets[passed % size]
            self._buckets[passed % size] = 0
        self._second = second


class LoadReporter:
    """Makes the load reports of one server.

    Utilisation is what was set for the call, or else for the server, or else the calls in flight ÷
    the capacity. In flight are those that run or wait for a thread, without the one that is
    answered: what the next caller will meet. So a server that does one call at a time is not full
    for being asked.

    Args:
        capacity: Calls that the server can do at once. None: its limit where it has one, or the
            number of its threads. An asyncio server has neither unless told; its utilisation is
            then not said.
        utilisation: Asked for each answer, for services whose load is not their calls; 1.0 is full.
        window: Whole seconds that rates are taken over.
        clock: Seconds, monotonic.

    Raises:
        ValueError: ``capacity`` is not above 0, or ``window`` below 1.
    """

    def __init__(
        self,
        *,
        capacity: float | None = None,
        utilisation: Callable[[], float] | None = None,
        window: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if (capacity is not None and not capacity > 0.0) or window < 1:
            raise ValueError(
                f"capacity must be above 0 and window at least 1, not {capacity!r}, {window!r}"
            )
        self._clock = clock
        self._given = capacity
        self._utilisation = utilisation
        self._in_flight: Callable[[], int] = lambda: 0
        self._capacity: Callable[[], float | None] = lambda: None
        self._lock = threading.Lock()
        self._calls = Rate(window, clock())
        self._failures = Rate(window, clock())
        # Replaced and never changed, so that it is read without the lock.
        self._set: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<LoadReporter {self.report()}>"

    def serves(self, in_flight: Callable[[], int], capacity: Callable[[], float | None]) -> None:
        """Tells whose load it is; called by the server.

        Args:
            in_flight: Calls that run or wait.
            capacity: Calls that the server can do at once; None where it has no bound.
        """
        self._in_flight = in_flight
        self._capacity = capacity

    def set(self, name: str, value: float | None) -> None:
        """Sets a value for every answer from now on; None takes it back.

        Args:
            name: A name of the service's own, or ``utilisation``, which then is not measured.
            value: In the name's own unit.
        """
        if value is not None:
            _check(name, value)
        with self._lock:
            kept = {key: old for key, old in self._set.items() if key != name}
            self._set = kept if value is None else {**kept, name: value}

    def ended(self, *, failed: bool) -> None:
        """A call has ended."""
        now = self._clock()
        with self._lock:
            self._calls.add(now)
            if failed:
                self._failures.add(now)

    def report(self, said: dict[str, float] | None = None, *, itself: int = 0) -> LoadReport:
        """How it is now.

        Args:
            said: What the handler of the call that is answered said.
            itself: 1 when the call that is answered is among those in flight.
        """
        in_flight = float(max(0, self._in_flight() - itself))
        now = self._clock()
        with self._lock:
            qps, eps = self._calls.per_second(now), self._failures.per_second(now)
        named = {"in_flight": in_flight, **self._set}
        if said:
            named.update(said)
        utilisation = named.pop(_OWN, None)
        if utilisation is None:
            utilisation = self._measured(in_flight)
        return LoadReport(utilisation=utilisation, qps=qps, eps=eps, named=named)

    def trailers(
        self, said: dict[str, float] | None = None, *, itself: int = 0
    ) -> tuple[tuple[str, bytes], ...]:
        """`report` as trailing metadata."""
        report = self.report(said, itself=itself)
        data = orca.encode(report)
        if len(data) > MOST:
            logger.warning("a load report of %d bytes goes without what was named", len(data))
            data = orca.encode(replace(report, named={}))
        return orca.trailers(data)

    def _measured(self, in_flight: float) -> float:
        if self._utilisation is not None:
            try:
                value = self._utilisation()
                _check(_OWN, value)
            except Exception:
                # The answer that the report goes with is good all the same.
                logger.exception("a load report goes without its utilisation")
                return 0.0
            return value
        capacity = self._given or self._capacity()
        return in_flight / capacity if capacity else 0.0


def reporter_of(load_reports: bool | LoadReporter) -> LoadReporter | None:
    """The reporter that a server's ``load_reports`` stands for."""
    if isinstance(load_reports, LoadReporter):
        return load_reports
    return LoadReporter() if load_reports else None


def report(context: Any, *, utilisation: float | None = None, **named: float) -> None:
    """Says something about the load with the answer to this call; the last word counts.

    Does nothing where the server sends no reports, so that handlers need not know.

    Args:
        context: The handler's context.
        utilisation: 1.0 is full; instead of what the server would measure.
        named: Values of the service's own, by name.

    Raises:
        ValueError: a value is not a number that can be sent, or utilisation is negative.
    """
    said: dict[str, float] | None = getattr(context, _SAID, None)
    if utilisation is not None:
        named[_OWN] = utilisation
    for name, value in named.items():
        _check(name, value)
    if said is not None:
        said.update(named)


def is_error(code: Code | None, error: BaseException | None) -> bool:
    """Whether a handler's end is an error of the server.

    Args:
        code: The status that it set, if any.
        error: What it raised, if anything; a cancelled handler is no error, and raises no
            ``Exception``.
    """
    return isinstance(error, Exception) if code is None else code in _ERRORS


def listen(context: Any) -> dict[str, float]:
    """Makes ready for what the handler may `report`; it will be in the mapping."""
    said: dict[str, float] = {}
    setattr(context, _SAID, said)
    return said


def _check(name: str, value: float) -> None:
    # Raises for half a surrogate pair, here rather than when the call ends.
    name.encode()
    if not math.isfinite(value) or (name == _OWN and value < 0.0):
        raise ValueError(f"{name} can't be {value!r} in a load report")
