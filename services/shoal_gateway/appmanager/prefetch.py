"""How many calls may wait for a worker. Pure.

A short function ends long before the next offer can come, so a manager holds some calls ahead. It
must not hold those that other managers would run at once. So the measure is time, not number: what
waits must be done within a moment, by what calls of its function took so far, on the slots that
will be free within that moment. A function that nothing is known of is taken only into a free slot.
"""

from __future__ import annotations

# An application and its function: what calls of one kind take says little of another's.
Kind = tuple[str, str]

# Seconds of work that may wait, for each slot: a few rounds of leasing and offering.
AHEAD = 0.5
# Calls that may wait, however short they are: so much may a dying manager delay.
MOST = 512
# Weight of the newest call in a function's mean.
WEIGHT = 0.2
# Seconds that the shortest call takes with all that belongs to it.
LEAST = 0.0005
# Counted in whole microseconds: a sum that is added to and taken from must come out at nothing.
_MICRO = 1_000_000


class Prefetch:
    """Keeps account of what waits, and of what it waits for."""

    def __init__(self) -> None:
        self._means: dict[Kind, float] = {}
        self._waiting: dict[str, int] = {}
        self._running: dict[str, tuple[Kind, float]] = {}
        self._total = 0

    def __repr__(self) -> str:
        return f"Prefetch(waiting={len(self._waiting)}, running={len(self._running)})"

    def ended(self, kind: Kind, seconds: float) -> None:
        """A call took so long."""
        seconds = max(LEAST, seconds)
        mean = self._means.get(kind, seconds)
        self._means[kind] = mean + WEIGHT * (seconds - mean)

    def room(self, kind: Kind, slots: int, now: float) -> bool:
        """Whether one more may wait behind those that do.

        Args:
            kind: Of the call.
            slots: That calls may have: all but those of commands.
            now: Monotonic seconds.
        """
        mean = self._means.get(kind)
        if mean is None or len(self._waiting) >= MOST:
            return False
        able = slots - sum(self._stays(*each, now) for each in self._running.values())
        return self._total + mean * _MICRO <= AHEAD * able * _MICRO

    def add(self, key: str, kind: Kind) -> None:
        """A call waits."""
        cost = int(self._means.get(kind, 0.0) * _MICRO)
        self._waiting[key] = cost
        self._total += cost

    def called(self, key: str, kind: Kind, now: float) -> None:
        """It has a worker."""
        self._unwait(key)
        self._running[key] = (kind, now)

    def remove(self, key: str) -> None:
        """It neither waits nor runs any longer."""
        self._unwait(key)
        self._running.pop(key, None)

    def _unwait(self, key: str) -> None:
        self._total -= self._waiting.pop(key, 0)

    def _stays(self, kind: Kind, since: float, now: float) -> bool:
        """Whether a call will keep its slot for longer than others may wait, for all we know."""
        mean = self._means.get(kind)
        # One that is late by so much has shown to be another sort of call.
        return mean is None or abs(mean - (now - since)) > AHEAD
