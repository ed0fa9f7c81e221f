"""Replicas: a few slots, a queue before them, perhaps a limit."""

from __future__ import annotations

import contextlib
import enum
from collections import deque
from collections.abc import Callable

from benchmarks.simulation.engine import Engine
from shoal_balancer import LoadReport
from shoal_balancer.limit import Limit, room


class End(enum.Enum):
    """How a replica's part in a call ends."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"


class Visit:
    """One attempt of a call at one replica.

    Attributes:
        work: Seconds that it takes at a replica of speed 1.
        attempt: Its number; the first is 1.
        over: Called at the replica when its part ends.
        report: What the replica says of itself then.
        pushback: Seconds after which one that was turned away may come back.
    """

    __slots__ = ("arrived", "attempt", "met", "over", "pushback", "report", "work")

    def __init__(self, work: float, attempt: int, over: Callable[[Visit, End], None]) -> None:
        self.work = work
        self.attempt = attempt
        self.over = over
        self.arrived = 0.0
        self.met = 0
        self.pushback = 0.0
        self.report: LoadReport | None = None


class Server:
    """A replica that serves calls in the order they came.

    Args:
        engine: The clock.
        slots: Calls at once.
        speed: Work per second; 1 is usual.
        limit: Above it calls are refused; None queues all.

    Attributes:
        in_flight: Calls running and queued.
        coming: Calls on the wire to it, which only the omniscient know of.
        fails: Asked for each call whether it fails at once; None: never.
        cold_until: Until then it works at a third of its speed.
        served: Calls answered.
    """

    COLD = 1.0 / 3.0

    def __init__(
        self, engine: Engine, *, slots: int = 1, speed: float = 1.0, limit: Limit | None = None
    ) -> None:
        self.slots = slots
        self.speed = speed
        self.in_flight = 0
        self.coming = 0
        self.fails: Callable[[], bool] | None = None
        self.cold_until = 0.0
        self.served = 0
        self.refused = 0
        self._engine = engine
        self._limiter = limit.limiter(contextlib.nullcontext()) if limit is not None else None
        self._running = 0
        self._queue: deque[Visit] = deque()

    @property
    def delay(self) -> float:
        """Mean services that one more call would wait for and take, for those who know it all."""
        return (self.in_flight + self.coming + 1) / (self.slots * self.speed)

    def arrive(self, visit: Visit) -> None:
        """A call comes in."""
        self.coming -= 1
        if self.fails is not None and self.fails():
            # It says how idle it is, too.
            self._leave(visit, End.FAILED)
            return
        limiter = self._limiter
        if limiter is not None and self.in_flight >= room(limiter.limit, visit.attempt):
            self.refused += 1
            visit.pushback = limiter.pushback
            self._leave(visit, End.REFUSED)
            return
        self.in_flight += 1
        visit.arrived = self._engine.now
        visit.met = self.in_flight
        if self._running < self.slots:
            self._start(visit)
        else:
            self._queue.append(visit)

    def _start(self, visit: Visit) -> None:
        self._running += 1
        now = self._engine.now
        speed = self.speed * (self.COLD if now < self.cold_until else 1.0)
        self._engine.after(visit.work / speed, self._finish, visit)

    def _finish(self, visit: Visit) -> None:
        self._running -= 1
        self.in_flight -= 1
        self.served += 1
        if self._limiter is not None:
            now = self._engine.now
            self._limiter.sample(now - visit.arrived, visit.met, now)
        if self._queue:
            self._start(self._queue.popleft())
        self._leave(visit, End.ANSWERED)

    def _leave(self, visit: Visit, end: End) -> None:
        now = self._engine.now
        visit.report = LoadReport(
            utilisation=self.in_flight / self.slots,
            qps=self.served / now if now else 0.0,
            named={"in_flight": float(self.in_flight)},
        )
        visit.over(visit, end)
