"""A replica as one caller knows it: facts, endpoint, calls in flight, load and health."""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable
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
    # Another replica was faster, and this call was cancelled: its latency is at least that long.
    OUTRUN = "outrun"


class Owner(Protocol[E]):
    """Who hears of ends that are more than a sample."""

    def failed(self, node: Node[E], latency: float, now: float) -> None:
        """A call failed."""

    def recovered(self, node: Node[E], now: float) -> None:
        """A call succeeded on a replica that something was held against."""

    def unproven(self, node: Node[E]) -> None:
        """The probe of an ejected replica ended without proving anything."""


class Observer(Protocol):
    """Who is told of what happens, for metrics; called on the threads of calls."""

    def ended(self, replica: Replica, latency: float, outcome: Outcome) -> None:
        """A call, or one attempt of it, has ended after ``latency`` seconds."""

    def ejected(self, replica: Replica, seconds: float) -> None:
        """A replica gets no calls for ``seconds``."""

    def readmitted(self, replica: Replica) -> None:
        """An ejected replica has shown itself well."""


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
        retired: Set when no new call may go here (draining, or gone for good). A caller looks after
            `begin` and picks again when it is set; whoever sets it looks at ``pending`` after that.
            So a node that is retired and idle stays idle.
        calls: Calls ended; approximate under threads, for display.
        failures: Calls failed; approximate likewise.
        reachable: False while its connection is known to be broken or not made yet. Set by
            `Balancer.reach` only.
        warming: When its slow start began, on the balancer's clock; None once it is over.
    """

    __slots__ = (
        "_on_idle",
        "_owner",
        "calls",
        "endpoint",
        "failures",
        "health",
        "load",
        "pending",
        "reachable",
        "replica",
        "retired",
        "warming",
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
        self.reachable = True
        self.warming: float | None = None
        self._owner = owner
        self._on_idle: Callable[[], object] | None = None

    def __repr__(self) -> str:
        parts = [self.replica.id, self.replica.target, f"in_flight={self.in_flight}"]
        if self.health.ejected:
            parts.append("ejected")
        if not self.reachable:
            parts.append("unreachable")
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

    def succeeded(self, endpoint: E) -> Node[E]:
        """A node for the same replica over another endpoint, with all that is known of it.

        Load and health are shared from now on: calls that run on the old one end there, and say as
        much of the replica.
        """
        made = copy.copy(self)
        made.endpoint = endpoint
        made.pending = []
        made._on_idle = None  # noqa: SLF001 - one of its own kind
        return made

    def abandon(self) -> None:
        """A call that was begun was not sent after all."""
        self.pending.pop()
        if self.health.probing_until is not None:
            self._spoil()
        if self._on_idle is not None:
            self._look()

    def end(self, latency: float, outcome: Outcome, now: float) -> None:
        """A call has ended; exactly once for each `begin`.

        Args:
            latency: Seconds that it took; passed over when the outcome is NEUTRAL.
            outcome: What its end says about the replica.
            now: When it ended, on the balancer's clock.

        Raises:
            IndexError: no call is in flight: one was ended twice, or never begun.
        """
        self.pending.pop()
        self.calls += 1
        if outcome is Outcome.OK:
            health = self.health
            if health.streak or health.until is not None:
                # First, for a replica that comes back starts from its peers' load.
                self._owner.recovered(self, now)
            self.load.observe(latency, now)
        elif outcome is Outcome.FAILED:
            self.failures += 1
            self._owner.failed(self, latency, now)
        else:
            if outcome is Outcome.OUTRUN and latency > (self.load.estimate(now) or 0.0):
                self.load.observe(latency, now)
            if self.health.probing_until is not None:
                self._spoil()
        if self._on_idle is not None:
            self._look()

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Calls ``callback`` once no call is in flight: at once, or when the last one ends.

        It may be called more than once. One callback at a time: a later one takes its place.
        """
        self._on_idle = callback
        # After the assignment: whoever ends the last call either sees the callback or was seen.
        if not self.pending:
            callback()

    def _look(self) -> None:
        callback = self._on_idle
        if callback is not None and not self.pending:
            callback()

    def _spoil(self) -> None:
        # Of several calls in flight any may be the probe, and there must not be two.
        if not self.pending:
            self._owner.unproven(self)


class ObservedNode(Node[E]):
    """A node whose ends are told to an observer; a class of its own, so that others pay nothing."""

    __slots__ = ("_observer",)

    def __init__(
        self, replica: Replica, endpoint: E, load: Load, owner: Owner[E], observer: Observer
    ) -> None:
        super().__init__(replica, endpoint, load, owner)
        self._observer = observer

    def end(self, latency: float, outcome: Outcome, now: float) -> None:
        """As `Node.end`, and tells of it."""
        super().end(latency, outcome, now)
        self._observer.ended(self.replica, latency, outcome)
