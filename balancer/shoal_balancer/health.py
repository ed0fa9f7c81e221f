"""Ejection: a replica that keeps failing gets no calls for a while, then one to show itself."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ejection:
    """When to eject, for how long, and how many at most.

    Source: Finagle's consecutive-failure accrual; gRFC A50 for the exponential time and the cap
    (anchors/balancing.md, lesson 12: the cap counts after ejecting and never takes the last).

    Attributes:
        failures: Consecutive failures that eject.
        base: Seconds of the first ejection; each further one lasts twice as long.
        cap: Seconds at most. A replica that stays well for this long has one ejection forgiven.
        max_share: Share of the replicas that may be ejected at once, 0 to 1.
    """

    failures: int = 5
    base: float = 5.0
    cap: float = 60.0
    max_share: float = 0.5

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise ValueError(f"failures must be at least 1, not {self.failures!r}")
        if not 0.0 < self.base <= self.cap:
            raise ValueError(f"base must be above 0 and at most cap: {self.base!r}, {self.cap!r}")
        if not 0.0 <= self.max_share <= 1.0:
            raise ValueError(f"max_share must be between 0 and 1, not {self.max_share!r}")

    def permits(self, members: int, ejected: int) -> bool:
        """Whether one more of ``members`` may be ejected while ``ejected`` are."""
        after = ejected + 1
        return after < members and after <= self.max_share * members

    def duration(self, earlier: int, rng: random.Random) -> float:
        """Seconds of an ejection after ``earlier`` ones, jittered by ±20 % against lockstep."""
        # 2 ** earlier overflows a float at 1024; the cap is reached long before.
        span: float = min(self.base * 2.0 ** min(earlier, 32), self.cap)
        return span * (0.8 + 0.4 * rng.random())

    def forgiven(self, earlier: int, well_for: float) -> int:
        """Ejections still held against a replica that was well for ``well_for`` seconds."""
        return max(0, earlier - int(well_for / self.cap))


@dataclass(slots=True)
class Health:
    """What one caller holds against one replica. Changed under the balancer's lock only.

    Attributes:
        streak: Failures since the last success.
        ejections: Ejections not yet forgiven.
        until: End of the present ejection on the balancer's clock, seconds; None when not ejected.
        readmitted: When the last ejection ended with a success.
        probing_until: While a probe is out, the moment after which it counts as lost; else None.
    """

    streak: int = 0
    ejections: int = 0
    until: float | None = None
    readmitted: float = 0.0
    probing_until: float | None = None

    @property
    def ejected(self) -> bool:
        """Whether it gets no calls but a probe."""
        return self.until is not None
