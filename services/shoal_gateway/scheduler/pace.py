"""How many jobs to take at once, and how long to wait when there is no room. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# Offers taken at once.
FIRST_BATCH = 4
MAX_BATCH = 256
# Seconds between leases that don't fill their batch: each is a transaction, and jobs that come one
# after the other are leased together. The first after a pause is not held up.
BREATH = 0.02
# Seconds to wait after nobody had room: doubling from the first to the second.
MIN_BACKOFF = 0.1
MAX_BACKOFF = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """What a flavor's room looks like from here.

    There is no count of free slots to read: several schedulers fill the same managers. So the batch
    grows while everything finds a place and falls to what did when something was left over, as a
    TCP sender finds its window.
    """

    batch: int = FIRST_BATCH
    # Seconds until the next lease; 0: at once.
    backoff: float = 0.0

    def after(self, placed: int, left: int, most: int = MAX_BATCH) -> Pace:
        """The next pace, after a batch of which ``left`` found no room; ``most`` bounds it."""
        if not left:
            return Pace(min(most, max(self.batch, 2 * placed)), 0.0)
        if placed:
            return Pace(max(1, placed), MIN_BACKOFF)
        return Pace(max(1, self.batch // 2), min(MAX_BACKOFF, max(MIN_BACKOFF, 2.0 * self.backoff)))
