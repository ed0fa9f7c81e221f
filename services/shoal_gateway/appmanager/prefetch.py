"""How many calls may wait for a worker. Pure.

A short function ends long before the next offer can come, so a manager holds some calls ahead. It
must not hold those that other managers would run at once. So the measure is time, not number: what
waits must be done within a moment, by what calls of its application took so far. An application
that nothing is known of is taken only into a free slot.
"""

from __future__ import annotations

# Seconds of work that may wait, for each slot: a few rounds of leasing and offering.
AHEAD = 0.5
# Calls that may wait, however short they are: so much may a dying manager delay.
MOST = 512
# Weight of the newest call in an application's mean.
WEIGHT = 0.2
# Seconds that the shortest call takes with all that belongs to it.
LEAST = 0.0005
# Counted in whole microseconds: a sum that is added to and taken from must come out at nothing.
_MICRO = 1_000_000


class Prefetch:
    """Keeps account of what waits.

    Args:
        slots: Calls at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._means: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        self._total = 0

    def __repr__(self) -> str:
        return f"Prefetch({self._slots}, waiting={len(self._waiting)})"

    def ended(self, application: str, seconds: float) -> None:
        """A call took so long."""
        seconds = max(LEAST, seconds)
        mean = self._means.get(application, seconds)
        self._means[application] = mean + WEIGHT * (seconds - mean)

    def room(self, application: str) -> bool:
        """Whether one more may wait behind those that do."""
        mean = self._means.get(application)
        if mean is None or len(self._waiting) >= MOST:
            return False
        return self._total + mean * _MICRO <= AHEAD * self._slots * _MICRO

    def add(self, key: str, application: str) -> None:
        """A call waits."""
        cost = int(self._means.get(application, 0.0) * _MICRO)
        self._waiting[key] = cost
        self._total += cost

    def remove(self, key: str) -> None:
        """It waits no longer."""
        self._total -= self._waiting.pop(key, 0)
