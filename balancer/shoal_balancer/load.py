"""Load metrics: what one more call to a replica would cost a caller.

A metric knows one replica and nothing of the others; choosing is `choice`'s business. All times are
seconds on the balancer's clock. A metric is read and written by several threads without a lock: a
lost update moves an average by one sample, which a lock on every call would not be worth.
"""

from __future__ import annotations

import math
from typing import Protocol

from shoal_balancer.report import LoadReport

# A failed call counts as at least this many times what its replica usually takes, so that failing
# fast does not look like being fast (the black hole of linkerd2#15374).
FAILURE_PENALTY = 5.0

# Where that multiplication ends, for failure upon failure would grow without bound, and a replica
# that recovers has to live its average down: at this many times its last good call, so that it
# loses against peers with hundreds of calls in flight, whether calls take a millisecond or a minute
# (and comes back after 7 tau), ...
PENALTY_RATIO = 1000.0
# ... and not below this many seconds, for the last good call may have been an odd short one.
PENALTY_CEILING = 10.0

# What a replica without evidence counts for, in seconds, while a call to it is out: worse than
# nearly all that answer. Also the first sample of one that failed before it ever succeeded.
UNPROVEN = 1.0

# An average below this, in seconds, is no evidence: a call over loopback takes a hundred times as
# long, so it is from a replica that was idle for long.
FLOOR = 1e-6


class Load(Protocol):
    """What a policy remembers about one replica."""

    def cost(self, in_flight: int, now: float) -> float:
        """Cost of one more call, comparable between the replicas of one policy."""

    def observe(self, latency: float, now: float) -> None:
        """A call took ``latency`` seconds and ended well."""

    def penalize(self, latency: float, now: float) -> None:
        """A call failed after ``latency`` seconds."""

    def seed(self, peers: float | None, now: float) -> None:
        """Puts a newcomer, or one that comes back from an ejection, at its peers' median.

        ``peers`` is the median of their estimates; None when nobody was measured.
        """

    def estimate(self, now: float) -> float | None:
        """What `seed` wants of the peers: the estimate without calls in flight, None if unknown."""

    def report(self, report: LoadReport, now: float) -> None:
        """The replica says how busy it is; only where the policy says that it wants to know."""


class PendingCount:
    """Calls in flight, and nothing else."""

    __slots__ = ()

    def cost(self, in_flight: int, now: float) -> float:  # noqa: ARG002 - the protocol's shape
        """The number of calls in flight."""
        return float(in_flight)

    def observe(self, latency: float, now: float) -> None:
        """Latency says nothing here."""

    def penalize(self, latency: float, now: float) -> None:
        """Failures are left to ejection."""

    def seed(self, peers: float | None, now: float) -> None:
        """A newcomer has nothing in flight."""

    def estimate(self, now: float) -> float | None:  # noqa: ARG002 - the protocol's shape
        """There is nothing to hand to a newcomer."""
        return None

    def report(self, report: LoadReport, now: float) -> None:
        """This caller's own calls are all that counts here."""


class PeakEwma:
    """Latency as a moving average that jumps up at once and comes down slowly.

    A sample above the average replaces it; one below pulls it down with weight
    ``1 - exp(-dt / tau)``. Between samples the average decays on read in the same way, so a replica
    that was slow is tried again after some time without calls. Cost is average × (in flight + 1).

    Without evidence (never measured, or decayed to nothing) a replica is the cheapest while it is
    idle, so that it gets a call, and among the dearest while that call is out, so that one which
    hangs does not swallow all others.

    Source: Finagle's ``PeakEwma``. There an outcome makes no difference; here failures cost.

    Args:
        tau: Time constant in seconds: after ``tau`` without samples the average is down to 1/e.
    """

    __slots__ = ("_average", "_good", "_inverse_tau", "_stamp")

    def __init__(self, tau: float) -> None:
        self._inverse_tau = 1.0 / tau
        self._average = 0.0
        self._good = 0.0
        self._stamp = 0.0

    def __repr__(self) -> str:
        return f"PeakEwma(average={self._average:.6g}, at={self._stamp:.6g})"

    def cost(self, in_flight: int, now: float) -> float:
        """Decayed average × (in flight + 1), in seconds."""
        average = self._average
        idle = now - self._stamp
        if idle > 0.0:
            average *= math.exp(-idle * self._inverse_tau)
        if average < FLOOR:
            average = UNPROVEN if in_flight else FLOOR
        return average * (in_flight + 1)

    def observe(self, latency: float, now: float) -> None:
        """Takes a sample in."""
        self._good = latency
        average = self._average
        if latency >= average:
            self._average = latency
        else:
            elapsed = now - self._stamp
            weight = math.exp(-elapsed * self._inverse_tau) if elapsed > 0.0 else 1.0
            self._average = average * weight + latency * (1.0 - weight)
        self._stamp = now

    def penalize(self, latency: float, now: float) -> None:
        """Takes a failure in as a sample of five times the usual; it never makes cheaper."""
        usual = self._average
        good = self._good
        ceiling = max(PENALTY_RATIO * (good or UNPROVEN), PENALTY_CEILING)
        penalty = min(FAILURE_PENALTY * usual, ceiling) if usual else UNPROVEN
        self.observe(max(latency, penalty, usual), now)
        self._good = good

    def seed(self, peers: float | None, now: float) -> None:
        """Starts at the peers' median: it neither floods nor starves."""
        if peers is not None:
            self._average = self._good = peers
            self._stamp = now

    def estimate(self, now: float) -> float | None:
        """The decayed average in seconds; None before the first sample."""
        if self._average == 0.0:
            return None
        return self.cost(0, now)

    def report(self, report: LoadReport, now: float) -> None:
        """Latency tells the same, as this caller meets it."""
