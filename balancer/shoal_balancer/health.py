"""Ejection: a replica that keeps failing gets no calls for a while, then one to show itself.

`Ejection` is the rule, the same for all replicas; `Health` is what one caller holds against one
replica, and its steps. Neither knows of the set, of load or of choosing.

Two things eject: failures in a row, which find the dead within a few calls, and a low share of
successes within a window, which finds those that fail every third call and never five in a row.
The window costs nothing while calls go well: it compares the node's two counters, calls and
failures, with what they were at marks that only failures set.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

# Shares like 0.29 × 100 fall a hair short of the whole number that they mean.
_ROUNDING = 1e-9
# Marks in one window; the oldest one leaves in steps of a tenth of it.
_BUCKETS = 10


@dataclass(frozen=True, slots=True)
class Ejection:
    """When to eject, for how long, and how many at most.

    Source: Finagle's consecutive-failure and success-rate accrual (streak, window, one probe); gRFC
    A50 (exponential time, minimum volume, cap on the share); Envoy (panic). Unlike A50's first
    drafts the cap counts after ejecting, and the last replica is never taken.

    Attributes:
        failures: Consecutive failures that eject.
        success_rate: Share of good calls below which a replica is ejected, 0 to 1; 0 never.
        window: Seconds in which that share is counted.
        volume: Calls in the window without which the share says nothing.
        base: Seconds of the first ejection; each further one lasts twice as long.
        cap: Seconds at most. A replica that stays well for this long has one ejection forgiven.
        max_share: Share of the replicas that may be ejected at once, 0 to 1.
        panic: Share of the replicas, 0 to 1. When fewer are neither ejected nor out of reach, the
            ejected are called like the others: the few would not bear the load of all, and it is
            likelier that something is wrong with the calls. 0 never.
    """

    failures: int = 5
    success_rate: float = 0.8
    window: float = 30.0
    volume: int = 20
    base: float = 5.0
    cap: float = 60.0
    max_share: float = 0.5
    panic: float = 0.5

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise ValueError(f"failures must be at least 1, not {self.failures!r}")
        if self.volume < 1:
            raise ValueError(f"volume must be at least 1, not {self.volume!r}")
        if not self.window > 0.0:
            raise ValueError(f"window must be a positive number of seconds, not {self.window!r}")
        if not 0.0 < self.base <= self.cap < math.inf:
            raise ValueError(
                "base and cap are seconds with 0 < base <= cap, not "
                f"base={self.base!r}, cap={self.cap!r}"
            )
        for name in ("success_rate", "max_share", "panic"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must be between 0 and 1, not {share!r}")

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
        marks: (time, calls, failures) of the node at some failures of the window, oldest first.
    """

    streak: int = 0
    ejections: int = 0
    until: float | None = None
    readmitted: float = 0.0
    probing_until: float | None = None
    marks: list[tuple[float, int, int]] = field(default_factory=list)

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

    def fail(
        self,
        rule: Ejection,
        now: float,
        rng: random.Random,
        *,
        permitted: bool,
        calls: int = 0,
        failures: int = 0,
    ) -> bool:
        """Takes a failure in; returns whether it ejects the replica, or ejects it again.

        While it is ejected only its probe counts: other calls were sent before the ejection and
        tell of the past. Which of several is the probe cannot be told, so the first to end after a
        probe went out speaks for it.

        Args:
            rule: The rule.
            now: The balancer's clock, seconds.
            rng: For the jitter.
            permitted: Whether one more replica may be ejected; a failed probe needs no permission.
            calls: The node's calls so far, this one included.
            failures: The node's failures so far, likewise.
        """
        self.streak += 1
        if self.until is None:
            poor = self._poor(rule, now, calls, failures)
            if (self.streak < rule.failures and not poor) or not permitted:
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
        self.marks.clear()
        self.until = None
        self.probing_until = None
        self.readmitted = now
        return True

    def _poor(self, rule: Ejection, now: float, calls: int, failures: int) -> bool:
        """Whether too small a share of the calls since the oldest mark in the window went well.

        The failure that set the mark is not counted: a window that begins with a failure would be
        unfair to a replica with few calls.
        """
        marks = self.marks
        while marks and marks[0][0] < now - rule.window:
            del marks[0]
        poor = False
        if marks:
            _, calls_then, failures_then = marks[0]
            volume = calls - calls_then
            bad = failures - failures_then
            poor = volume >= rule.volume and volume - bad < rule.success_rate * volume - _ROUNDING
        if not marks or now - marks[-1][0] >= rule.window / _BUCKETS:
            marks.append((now, calls, failures))
        return poor

    def probe(self, rule: Ejection, now: float) -> None:
        """Its one probe goes out; without an end it counts as lost after the longest ejection."""
        self.probing_until = now + rule.cap

    def unproven(self) -> bool:
        """The probe ended and proved nothing; returns whether there was one."""
        if self.probing_until is None:
            return False
        self.probing_until = None
        return True
