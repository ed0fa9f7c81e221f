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

    In any ``ttl`` seconds there are at most ``ratio × calls + per_second × ttl`` retries. Deposits
    come from the fast path of each call and take no lock: a deposit is one timestamp appended to a
    deque, which is atomic. Only a retry looks at them and drops the old ones.

    Source: Finagle's ``RetryBudget`` (20 %, a minimum per second, deposits with a TTL).

    Args:
        ratio: Retries allowed per call, for example 0.2.
        per_second: Retries allowed every second however few calls there are.
        ttl: Seconds that a deposit, or a retry, counts.
        clock: Seconds, monotonic.
        lock: Guards withdrawals; a fresh ``threading.Lock()`` outside tests.

    Raises:
        ValueError: ``ratio`` or ``per_second`` is negative, or ``ttl`` not above 0.
    """

    # Deposits kept, so that memory is bounded. A process with more calls than this within the ttl
    # has retries enough: 20 % of these are 2000 in ten seconds.
    MOST = 10_000

    def __init__(
        self,
        ratio: float = 0.2,
        per_second: float = 3.0,
        ttl: float = 10.0,
        *,
        clock: Callable[[], float],
        lock: AbstractContextManager[object],
    ) -> None:
        self.ttl = ttl
        self.adjust(ratio, per_second)
        self._clock = clock
        self._lock = lock
        self._calls: deque[float] = deque(maxlen=self.MOST)
        self._retries: deque[float] = deque()

    def __repr__(self) -> str:
        return (
            f"RetryBudget(ratio={self.ratio:g}, per_second={self.per_second:g}, ttl={self.ttl:g})"
        )

    def adjust(self, ratio: float, per_second: float) -> None:
        """Allows more or less from now on; what was deposited and made counts on.

        Args:
            ratio: Retries for each call.
            per_second: Retries a second besides.

        Raises:
            ValueError: one is negative.
        """
        if ratio < 0.0 or per_second < 0.0 or not self.ttl > 0.0:
            raise ValueError(
                "a retry budget needs ratio >= 0, per_second >= 0 and ttl > 0, not "
                f"ratio={ratio!r}, per_second={per_second!r}, ttl={self.ttl!r}"
            )
        self.ratio = ratio
        self.per_second = per_second

    def deposit(self) -> None:
        """Counts a call; on the fast path of every call."""
        self._calls.append(self._clock())

    def withdraw(self) -> bool:
        """Whether a retry may be made now; counts it when it may."""
        with self._lock:
            now = self._clock()
            if self._balance(now) < 1.0:
                return False
            self._retries.append(now)
            return True

    def balance(self) -> float:
        """Retries that could be made now; below 0 when calls that paid for some are forgotten."""
        with self._lock:
            return self._balance(self._clock())

    def _balance(self, now: float) -> float:
        horizon = now - self.ttl
        _forget(self._calls, horizon)
        _forget(self._retries, horizon)
        earned = len(self._calls) * self.ratio + self.per_second * self.ttl
        # 0.29 × 100 is a hair below 29: a retry that was earned must not be lost to rounding.
        return round(earned - len(self._retries), 9)


def _forget(moments: deque[float], horizon: float) -> None:
    """Drops what is not after ``horizon``. Only ever one thread, while others may append."""
    while moments and moments[0] <= horizon:
        moments.popleft()
