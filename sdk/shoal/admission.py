"""Who gets in: a server's limit on calls at once, and the threads that serve them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from shoal_balancer import Limit
from shoal_balancer.limit import room

# Spread of pushbacks, so that those who were turned away together do not come back together.
JITTER = (0.75, 1.5)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call that was let in.

    Attributes:
        since: When, seconds, monotonic.
        in_flight: Calls that were in then, this one included.
    """

    since: float
    in_flight: int


class Admission:
    """Counts the calls under a limit, and measures them for it. Safe from any thread.

    Streams are not under it: they last for reasons of their own, so that their length says nothing
    about the load (as in Netflix's interceptor for servers).

    Args:
        limit: Fixed, or following the latency.
        clock: Seconds, monotonic.
        spread: Draws a factor for each pushback.
    """

    def __init__(
        self,
        limit: Limit,
        *,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = lambda: random.uniform(*JITTER),  # noqa: S311 - no secret
    ) -> None:
        self.limiter = limit.limiter(threading.Lock())
        self.in_flight = 0
        self.refused = 0
        self._clock = clock
        self._spread = spread
        self._lock = threading.Lock()

    def adjust(self, limit: Limit) -> None:
        """Another limit from now on; calls that are in stay in. One that adapts begins anew."""
        self.limiter = limit.limiter(threading.Lock())

    @property
    def full(self) -> bool:
        """Whether a call that comes for the first time is to be turned away."""
        return self.in_flight >= self.limiter.limit

    def full_for(self, attempt: int) -> bool:
        """Whether a call is that comes for the ``attempt``-th time."""
        return self.in_flight >= room(self.limiter.limit, attempt)

    def enter(self) -> Ticket:
        """Lets a call in, full or not."""
        with self._lock:
            self.in_flight += 1
            return Ticket(self._clock(), self.in_flight)

    def try_enter(self, attempt: int = 1) -> Ticket | None:
        """Lets a call in unless it is full for the ``attempt``-th try."""
        with self._lock:
            if self.full_for(attempt):
                return None
            self.in_flight += 1
            return Ticket(self._clock(), self.in_flight)

    def leave(self, ticket: Ticket) -> None:
        """The call has ended."""
        now = self._clock()
        with self._lock:
            self.in_flight -= 1
        self.limiter.sample(now - ticket.since, ticket.in_flight, now)

    def turn_away(self) -> tuple[str, float]:
        """Counts a call that was not let in; what to say to it, and seconds of pushback."""
        with self._lock:
            self.refused += 1
        message = f"this replica takes {self.limiter.limit} calls at once, and has them"
        return message, self.limiter.pushback * self._spread()


class Workers(ThreadPoolExecutor):
    """Threads for handlers, which tells how many calls wait for one."""

    @property
    def waiting(self) -> int:
        """Calls that no thread has begun yet."""
        return self._work_queue.qsize()


class Lane(ThreadPoolExecutor):
    """A way into other threads that counts who takes it. It has no threads of its own.

    grpc hands a call to the pool before a thread is free for it. So this sees a call wait, which
    the handler on its thread can't, and a queue shows in the latency that the limit follows.
    """

    def __init__(self, pool: ThreadPoolExecutor, admission: Admission) -> None:
        # grpc takes nothing but a ThreadPoolExecutor; what one would set up here is not wanted.
        self._pool = pool
        self._admission = admission

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Lets a call in and passes it on."""
        ticket = self._admission.enter()
        try:
            return self._pool.submit(self._run, ticket, fn, args, kwargs)
        except BaseException:
            self._admission.leave(ticket)
            raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """The other threads end by themselves."""

    def _run(self, ticket: Ticket, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            self._admission.leave(ticket)
