"""A budget for retries: a share of the calls, and a trickle.

Why a budget and not only a number of attempts: when everything fails, three attempts a call are
three times the load, at the worst moment. A budget lets single failures be retried at once and
takes retries away from the storm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager


class RetryBudget:
    """Allows retries for a share of recent calls and a few a second besides.

    Every call deposits ``ratio``; a retry withdraws 1. Deposits are forgotten after ``ttl``
    seconds. They come from the fast path of each call and take no lock: they are appended to a
    deque, which is atomic, and summed up only when a retry asks.

    Source: Finagle's ``RetryBudget`` (token bucket with a TTL, 20 % and a minimum per second).

    Args:
        ratio: Retries allowed per call, for example 0.2.
        per_second: Retries allowed every second however few calls there are.
        ttl: Seconds that a deposit counts.
        clock: Seconds, monotonic.
        lock: Guards withdrawals; a fresh ``threading.Lock()`` outside tests.
    """

    # Deposits are gathered in buckets of ttl / BUCKETS seconds.
    BUCKETS = 10
    # Deposits kept between two looks; more than that earn nothing, so that memory is bounded.
    MOST_FRESH = 10_000

    def __init__(
        self,
        ratio: float = 0.2,
        per_second: float = 3.0,
        ttl: float = 10.0,
        *,
        clock: Callable[[], float],
        lock: AbstractContextManager[object],
    ) -> None:
        if ratio < 0.0 or per_second < 0.0 or not ttl > 0.0:
            raise ValueError(
                "a retry budget needs ratio >= 0, per_second >= 0 and ttl > 0, not "
                f"ratio={ratio!r}, per_second={per_second!r}, ttl={ttl!r}"
            )
        self.ratio = ratio
        self.per_second = per_second
        self.ttl = ttl
        self._clock = clock
        self._lock = lock
        self._fresh: deque[None] = deque(maxlen=self.MOST_FRESH)
        # A method bound once: the fast path calls it as it is.
        self._deposit = self._fresh.append
        self._buckets: deque[tuple[float, float]] = deque()
        self._spent: deque[float] = deque()

    def deposit(self) -> None:
        """Counts a call; on the fast path of every call."""
        self._deposit(None)

    def withdraw(self) -> bool:
        """Whether a retry may be made now; counts it when it may."""
        now = self._clock()
        with self._lock:
            if self._balance(now) < 1.0:
                return False
            self._spent.append(now)
            return True

    def balance(self) -> float:
        """Retries that could be made now."""
        with self._lock:
            return self._balance(self._clock())

    def _balance(self, now: float) -> float:
        self._gather(now)
        horizon = now - self.ttl
        while self._buckets and self._buckets[0][0] <= horizon:
            self._buckets.popleft()
        while self._spent and self._spent[0] <= horizon:
            self._spent.popleft()
        earned = sum(amount for _, amount in self._buckets) + self.per_second * self.ttl
        return earned - len(self._spent)

    def _gather(self, now: float) -> None:
        """Moves what callers appended since the last look into the bucket of this moment."""
        count = len(self._fresh)
        if not count:
            return
        for _ in range(count):
            self._fresh.popleft()
        amount = count * self.ratio
        if self._buckets and now - self._buckets[-1][0] < self.ttl / self.BUCKETS:
            start, sofar = self._buckets[-1]
            self._buckets[-1] = (start, sofar + amount)
        else:
            self._buckets.append((now, amount))
