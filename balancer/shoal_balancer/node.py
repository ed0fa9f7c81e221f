"""A replica as one caller knows it: facts, endpoint, calls in flight, load and health."""

from __future__ import annotations

import enum
from typing import Generic, Protocol, TypeVar

from shoal_balancer.health import Health
from shoal_balancer.load import Load
from shoal_balancer.replica import Replica

E = TypeVar("E")


class Outcome(enum.Enum):
    """What a call's end says about the replica that served it."""

    OK = "ok"
    FAILED = "failed"
    # The caller gave up: no word about the replica, and no latency to learn from.
    NEUTRAL = "neutral"


class Owner(Protocol[E]):
    """Who hears of ends that are more than a sample."""

    def failed(self, node: Node[E], latency: float) -> None:
        """A call failed."""

    def recovered(self, node: Node[E]) -> None:
        """A call succeeded on a replica that something was held against."""

    def now(self) -> float:
        """The balancer's clock, seconds."""


class Node(Generic[E]):
    """One replica with this caller's experience of it.

    The list of nodes is an immutable snapshot; a node is the mutable history behind it and lives on
    from snapshot to snapshot while its replica stays. Each call is one `begin` and one `end`.

    Attributes:
        replica: The facts, replaced when the directory has newer ones.
        endpoint: What the caller needs to reach it.
        load: The policy's metric.
        health: What is held against it.
        pending: One entry a call in flight. A list, because append, pop and len of a list are
            atomic in CPython with and without the GIL, which ``+= 1`` is not: without a lock, a
            count would drift with threads and never come back.
        retired: Set before the endpoint closes: a call that began after it must pick again.
        calls: Calls ended; approximate under threads, for display.
        failures: Calls failed; approximate likewise.
    """

    __slots__ = (
        "_owner",
        "calls",
        "endpoint",
        "failures",
        "health",
        "load",
        "pending",
        "replica",
        "retired",
    )

    def __init__(self, replica: Replica, endpoint: E, load: Load, owner: Owner[E]) -> None:
        self.replica = replica
        self.endpoint = endpoint
        self.load = load
        self.health = Health()
        self.pending: list[None] = []
        self.retired = False
        self.calls = 0
        self.failures = 0
        self._owner = owner

    def __repr__(self) -> str:
        parts = [self.replica.id, self.replica.target, f"in_flight={self.in_flight}"]
        if self.health.ejected:
            parts.append("ejected")
        if self.retired:
            parts.append("retired")
        return f"<Node {' '.join(parts)}>"

    @property
    def in_flight(self) -> int:
        """Calls begun and not ended, exact at any moment."""
        return len(self.pending)

    def begin(self) -> None:
        """A call goes out."""
        self.pending.append(None)

    def abandon(self) -> None:
        """A call that was begun was not sent after all."""
        self.pending.pop()

    def end(self, latency: float, outcome: Outcome) -> None:
        """A call has ended after ``latency`` seconds; exactly once for each `begin`."""
        self.pending.pop()
        self.calls += 1
        if outcome is Outcome.OK:
            self.load.observe(latency, self._owner.now())
            health = self.health
            if health.streak or health.until is not None:
                self._owner.recovered(self)
        elif outcome is Outcome.FAILED:
            self.failures += 1
            self._owner.failed(self, latency)
        elif self.health.probing_until is not None:
            # A probe that the caller gave up proves nothing: let the next call be the probe.
            self.health.probing_until = None
