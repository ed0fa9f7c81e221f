"""Ejection: a replica that keeps failing gets no calls for a while, then one to show itself.

`Ejection` is the rule, the same for all replicas; `Health` is what one caller holds against one
replica, and its steps. Neither knows of the set, of load or of choosing.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

# Shares like 0.29 × 100 fall a hair short of the whole number that they mean.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Ejection:
    """When to eject, for how long, and how many at most.

    Source: Finagle's consecutive-failure accrual (streak, one probe); gRFC A50 (exponential time,
    cap on the share). Unlike A50's first drafts the cap counts after ejecting, and the last replica
    is never taken.

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
        if not 0.0 < self.base <= self.cap < math.inf:
            raise ValueError(
                "base and cap are seconds with 0 < base <= cap, not "
                f"base={self.base!r}, cap={self.cap!r}"
            )
        if not 0.0 <= self.max_share <= 1.0:
            raise ValueError(f"max_share must be between 0 and 1, not {self.max_share!r}")

    def allowed(self, members: int) -> int:
        """How many of ``members`` may be ejected at once; never all of them."""
        return max(0, min(members - 1, int(self.max_share * members + _ROUNDING)))

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
            An ejection does not end by itself then: a probe has to succeed.
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

    @property
    def due(self) -> float:
        """When it may have its next probe; infinity when it needs none."""
        if self.until is None:
            return math.inf
        # A probe whose end was never told is given up after a while, else it would be the last.
        return self.until if self.probing_until is None else self.probing_until

    def fail(self, rule: Ejection, now: float, rng: random.Random, *, permitted: bool) -> bool:
        """Takes a failure in; returns whether it ejects the replica, or ejects it again.

        While it is ejected only its probe counts: other calls were sent before the ejection and
        tell of the past. Which of several is the probe cannot be told, so the first to end after a
        probe went out speaks for it.

        Args:
            rule: The rule.
            now: The balancer's clock, seconds.
            rng: For the jitter.
            permitted: Whether one more replica may be ejected; a failed probe needs no permission.
        """
        self.streak += 1
        if self.until is None:
            if self.streak < rule.failures or not permitted:
                return False
            self.ejections = rule.forgiven(self.ejections, now - self.readmitted)
        elif self.probing_until is None:
            return False
        self.probing_until = None
        self.until = now + rule.duration(self.ejections, rng)
        self.ejections += 1
        return True

    def succeed(self, now: float, *, trusted: bool) -> bool:
        """Takes a success in; returns whether it ends an ejection.

        Args:
            now: The balancer's clock, seconds.
            trusted: Whether the replica gets ordinary calls although it is ejected, because too
                many are. Else only the probe's success counts, as with failures.
        """
        if self.until is None:
            self.streak = 0
            return False
        if self.probing_until is None and not trusted:
            return False
        self.streak = 0
        self.until = None
        self.probing_until = None
        self.readmitted = now
        return True

    def probe(self, rule: Ejection, now: float) -> None:
        """Its one probe goes out; without an end it counts as lost after the longest ejection."""
        self.probing_until = now + rule.cap

    def unproven(self) -> bool:
        """The probe ended and proved nothing; returns whether there was one."""
        if self.probing_until is None:
            return False
        self.probing_until = None
        return True
