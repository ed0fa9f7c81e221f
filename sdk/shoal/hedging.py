"""Hedging: a call that takes unusually long is sent a second time, and the first answer wins.

Only for methods that are safe to repeat, and only where the channel asks for it. What "unusually
long" means is measured: a high quantile of the method's own recent latencies.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from shoal.attempts import Again, CallState
from shoal.pool import Pool, ReplicaNode
from shoal_balancer import Outcome, Quantile, Replica, RetryBudget

if TYPE_CHECKING:
    from shoal.methods import Method


@dataclass(frozen=True, slots=True)
class Hedge:
    """When a second copy of a call is sent.

    Source: Dean, Barroso, "The Tail at Scale" (2013); Finagle's ``BackupRequestFilter``.

    Attributes:
        quantile: Of the method's latencies, above 0 and below 1; a call that takes longer is sent
            again. At 0.99 one call in a hundred is.
        extra: Second copies per call at most, beside one in ten seconds: where everything becomes
            slow at once, copies must not make it slower.
        shortest: Seconds that a call is always waited for, so that calls of microseconds are not
            sent twice for a hiccup of this process.
        volume: Calls of a method that are measured before any is sent twice.
    """

    quantile: float = 0.99
    extra: float = 0.02
    shortest: float = 0.002
    volume: int = 100

    def __post_init__(self) -> None:
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"quantile must be above 0 and below 1, not {self.quantile!r}")
        if not 0.0 < self.extra <= 1.0:
            raise ValueError(f"extra must be above 0 and at most 1, not {self.extra!r}")
        if self.shortest < 0.0 or self.volume < 1:
            raise ValueError(
                "shortest must be at least 0 and volume at least 1: "
                f"shortest={self.shortest!r}, volume={self.volume!r}"
            )

    def budget(self) -> RetryBudget:
        """A budget of copies, for one channel."""
        return RetryBudget(self.extra, 0.1, clock=time.monotonic, lock=threading.Lock())


class Hedging:
    """One method's measured latency and when its calls are sent again."""

    def __init__(
        self,
        rule: Hedge,
        budget: RetryBudget,
        hedged: Callable[[str, Replica], object] | None,
    ) -> None:
        self._rule = rule
        self._budget = budget
        self._hedged = hedged
        self._latencies = Quantile(rule.quantile, volume=rule.volume)

    def deposit(self) -> None:
        """Counts a call."""
        self._budget.deposit()

    def measured(self, latency: float, now: float) -> None:
        """A call was answered."""
        self._latencies.record(latency, now)

    def patience(self, now: float) -> float | None:
        """Seconds after which a call is sent again; None while too little is known."""
        value = self._latencies.value(now)
        return None if value is None else max(value, self._rule.shortest)

    def second(self, pool: Pool, state: CallState, first: ReplicaNode) -> ReplicaNode | None:
        """Another replica for a second copy, with the call begun on it; None to wait on."""
        if state.cancelled:
            return None
        now = pool.clock()
        node = pool.pick(now, (first, *state.tried))
        if node is None or not self._budget.withdraw():
            return None
        node.begin()
        if node.retired:
            node.abandon()
            return None
        if self._hedged is not None:
            self._hedged(state.method, node.replica)
        return node

    def attempt(
        self, method: Method, state: CallState, metadata: Any, begin: Callable[..., Any]
    ) -> tuple[Any, Any]:
        """One attempt of a blocking call, with a second copy of it if the first one is slow.

        Args:
            method: Ours.
            state: The call's.
            metadata: The caller's.
            begin: Sends a copy: (multi-callable, seconds or None, metadata) → grpc's future.

        Returns:
            The response and the call that brought it.

        Raises:
            Again: it failed and another may be made.
            CallError: it failed for good.
        """
        race = _Race(method, state, metadata, begin)
        try:
            race.start(method.channel.acquire(state))
            patience = self.patience(method.pool.clock())
            if patience is not None and not race.ended_within(patience):
                (copy,) = race.running
                node = self.second(method.pool, state, copy.node)
                if node is not None:
                    race.start(node)
            winner = race.winner()
        finally:
            race.give_up()
        now = method.pool.clock()
        self.measured(now - race.began, now)
        winner.inner.shoal_replica = winner.node.replica
        return winner.inner.result(), winner.inner


@dataclass(eq=False)
class _Copy:
    """One copy of a call, under way."""

    inner: Any
    node: ReplicaNode
    began: float
    bound: float | None


class _Race:
    """Copies of one call, of which the first good answer counts."""

    def __init__(
        self, method: Method, state: CallState, metadata: Any, begin: Callable[..., Any]
    ) -> None:
        self.running: list[_Copy] = []
        self.began = method.pool.clock()
        self._method = method
        self._state = state
        self._metadata = metadata
        self._begin = begin
        # grpc's threads put in what has ended.
        self._ended: queue.SimpleQueue[_Copy] = queue.SimpleQueue()
        self._early: _Copy | None = None
        self._won = False

    def start(self, node: ReplicaNode) -> None:
        """Sends a copy to a node that the call was begun on."""
        began = self._method.pool.clock()
        bound = self._state.timeout(began)
        try:
            inner = self._begin(
                self._method.inner(node), bound, self._state.metadata(self._metadata)
            )
        except BaseException:
            node.end(0.0, Outcome.NEUTRAL, began)
            raise
        copy = _Copy(inner, node, began, bound)
        self.running.append(copy)
        inner.add_done_callback(lambda _: self._ended.put(copy))

    def ended_within(self, seconds: float) -> bool:
        """Whether the first copy ends so soon."""
        try:
            self._early = self._ended.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def winner(self) -> _Copy:
        """The first copy with a good answer, waited for.

        Raises:
            Again: all have failed and another attempt may be made.
            CallError: all have failed, for good.
        """
        while True:
            copy, self._early = self._early or self._ended.get(), None
            self.running.remove(copy)
            now = self._method.pool.clock()
            inner = copy.inner
            if inner.code() is grpc.StatusCode.OK:
                self._won = True
                copy.node.end(now - copy.began, Outcome.OK, now)
                if self._method.pool.reports:
                    self._method.pool.heard(copy.node, inner.trailing_metadata())
                return copy
            self._state.record(copy.node, inner, began=copy.began, ended=now, bound=copy.bound)
            if not self.running:
                why = self._state.verdict(copy.node, now)
                if why is None:
                    raise Again from inner.exception()
                raise self._method.error(self._state, inner, why) from inner.exception()

    def give_up(self) -> None:
        """Cancels what is still under way: it lost, or its caller has left."""
        for copy in self.running:
            copy.inner.cancel()
            now = self._method.pool.clock()
            outcome = Outcome.OUTRUN if self._won else Outcome.NEUTRAL
            copy.node.end(now - copy.began, outcome, now)
        self.running.clear()
