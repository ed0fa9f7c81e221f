"""Callers: each has a balancer of its own, the shipped one, and calls as the SDK does."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from benchmarks.simulation.engine import Engine
from benchmarks.simulation.servers import End, Server, Visit
from shoal_balancer import (
    Balancer,
    Ejection,
    Node,
    Outcome,
    Policy,
    Replica,
    RetryBudget,
    SlowStart,
    Subset,
)

OUTCOMES = {
    End.ANSWERED: Outcome.OK,
    End.FAILED: Outcome.FAILED,
    End.REFUSED: Outcome.NEUTRAL,
}


@dataclass(frozen=True, slots=True)
class Habits:
    """How callers balance; the defaults are those of the SDK.

    Attributes:
        policy: Makes each caller's policy.
        ejection: When to eject.
        slow_start: How newcomers begin.
        subset: Which part of the set a caller uses.
        attempts: Attempts that failures may take.
        refusals: Replicas that may turn a call away, before it waits until one wants it back.
    """

    policy: Callable[[], Policy]
    ejection: Ejection | None = Ejection()  # noqa: RUF009 - frozen
    slow_start: SlowStart | None = SlowStart()  # noqa: RUF009 - frozen
    subset: Subset | None = None
    attempts: int = 3
    refusals: int = 5


@dataclass(slots=True)
class Seen:
    """What callers have met.

    Attributes:
        latencies: Of calls that were answered, seconds, retries included.
        times: When each of them ended.
        failed: Calls without an answer.
        attempts: Attempts that replicas got.
        refused: Those that were turned away.
    """

    latencies: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    failed: int = 0
    attempts: int = 0
    refused: int = 0


class Call:
    """A call and its attempts."""

    __slots__ = (
        "attempt", "back", "began", "failures", "node", "refusals", "sent", "tried", "work",
    )  # fmt: skip

    def __init__(self, began: float, work: float) -> None:
        self.began = began
        self.work = work
        self.attempt = 1
        self.failures = 0
        self.refusals = 0
        # When the first of those that refused wants to be asked again.
        self.back = math.inf
        self.sent = began
        self.tried: list[Node[Server]] = []
        self.node: Node[Server]


class Caller:
    """One process with a channel.

    Args:
        engine: The clock.
        habits: How it balances.
        servers: The replica behind each id.
        name: For its subset.
        seed: Of its randomness.
        wire: Seconds to a replica, and the same back.
        seen: Where it notes what it met.
    """

    def __init__(
        self,
        engine: Engine,
        habits: Habits,
        servers: dict[str, Server],
        *,
        name: str,
        seed: int,
        wire: float,
        seen: Seen,
    ) -> None:
        self._engine = engine
        self._habits = habits
        self._name = name
        self._wire = wire
        self._seen = seen
        self.rng = random.Random(seed)  # noqa: S311 - no secret
        nothing = contextlib.nullcontext()
        self._budget = RetryBudget(clock=engine.clock, lock=nothing)
        self.balancer: Balancer[Server] = Balancer(
            habits.policy(),
            connect=lambda replica: servers[replica.id],
            clock=engine.clock,
            rng=self.rng,
            lock=nothing,
            ejection=habits.ejection,
            slow_start=habits.slow_start,
            reserve=1.0,
        )
        self._reports: bool = getattr(self.balancer.policy, "reports", False)

    def observe(self, replicas: Iterable[Replica]) -> None:
        """The directory tells of a new set."""
        subset = self._habits.subset
        self.balancer.update(replicas if subset is None else subset.of(replicas, self._name))
        self.balancer.tick()

    def call(self, work: float) -> None:
        """Makes a call that takes ``work`` seconds."""
        self._budget.deposit()
        self._begin(Call(self._engine.now, work))

    def _begin(self, call: Call) -> None:
        self._send(call)

    def _send(self, call: Call) -> None:
        now = self._engine.now
        node = self.balancer.pick(now, call.tried)
        if node is None:
            self._seen.failed += 1
            return
        node.begin()
        node.endpoint.coming += 1
        call.node = node
        call.sent = now
        self._seen.attempts += 1

        def over(visit: Visit, end: End) -> None:
            self._engine.after(self._wire, self._back, call, visit, end)

        self._engine.after(self._wire, node.endpoint.arrive, Visit(call.work, call.attempt, over))

    def _back(self, call: Call, visit: Visit, end: End) -> None:
        now = self._engine.now
        node = call.node
        if self._reports and visit.report is not None:
            node.load.report(visit.report, now)
        node.end(now - call.sent, OUTCOMES[end], now)
        if end is End.ANSWERED:
            self._seen.latencies.append(now - call.began)
            self._seen.times.append(now)
            return
        call.tried.append(node)
        call.attempt += 1
        wait = self._wait(call, visit, end)
        if wait is None:
            self._seen.failed += 1
        elif wait:
            self._engine.after(wait, self._send, call)
        else:
            self._send(call)

    def _wait(self, call: Call, visit: Visit, end: End) -> float | None:
        """Seconds to the next attempt; None when there is none. Backoff is left out."""
        if end is End.REFUSED:
            self._seen.refused += 1
            call.refusals += 1
            call.back = min(call.back, self._engine.now + visit.pushback)
            if call.refusals < self._habits.refusals:
                return 0.0
        # That nobody had room counts as one attempt.
        call.failures += 1
        if call.failures >= self._habits.attempts or not self._budget.withdraw():
            return None
        if end is End.FAILED:
            return 0.0
        wait = max(0.0, call.back - self._engine.now)
        call.tried.clear()
        call.refusals = 0
        call.back = math.inf
        return wait
