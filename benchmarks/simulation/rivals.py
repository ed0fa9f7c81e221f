"""What others do with what replicas say: candidates that were tried and are not shipped.

They are here so that the choice of `LeastReported` with a limit can be looked at again. Their
callers are in `probing`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

from shoal_balancer import Load, LoadReport, Node
from shoal_balancer.choice import cheaper_of_two
from shoal_balancer.load import PendingCount
from shoal_balancer.reported import Means, ReportedQueue

N = TypeVar("N", bound=Node[Any])


class LastWord(PendingCount):
    """What a replica said last, however long ago, and own calls in flight."""

    __slots__ = ("_load",)

    def __init__(self) -> None:
        self._load = 0.0

    def report(self, report: LoadReport, now: float) -> None:  # noqa: ARG002 - the protocol's shape
        """Believes it."""
        self._load = report.utilisation

    def cost(self, in_flight: int, now: float) -> float:  # noqa: ARG002 - likewise
        """Calls there, as far as known."""
        return self._load + in_flight


class BelievedForever:
    """Of two random replicas the one that said the smaller load last."""

    reports = True

    def load(self) -> Load:
        """The last word."""
        return LastWord()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """The cheaper of two."""
        return cheaper_of_two(nodes, now, rng)


class Memory:
    """Of two random replicas and the best ones of the last pick the one with the shortest queue.

    Source: Mitzenmacher, Prabhakar, Shah, "Load Balancing with Memory" (2002). The queues are those
    that `LeastReported` goes by, fading with age.

    Args:
        fresh: Random ones.
        kept: Best ones that a pick hands on to the next.
    """

    reports = True

    def __init__(self, fresh: int = 2, kept: int = 1) -> None:
        self._fresh = fresh
        self._kept = kept
        self._means = Means()
        self._best: list[Node[Any]] = []

    def load(self) -> Load:
        """What a replica reported."""
        return ReportedQueue(self._means)

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """The shortest; ties at random among the fresh."""
        drawn: list[Any] = [nodes[int(rng.random() * len(nodes))] for _ in range(self._fresh)]
        drawn += [node for node in self._best if node in nodes]
        ranked: list[N] = sorted(
            dict.fromkeys(drawn), key=lambda node: node.load.cost(len(node.pending), now)
        )
        self._best = list(ranked[: self._kept])
        return ranked[0]


class Probed:
    """The shortest queue among those that were asked for this call (`probing.AsksFirst`)."""

    def __init__(self) -> None:
        self.answers: list[tuple[float, float, Node[Any]]] = []

    def load(self) -> Load:
        """Nothing to remember."""
        return PendingCount()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:  # noqa: ARG002
        """The shortest, or any when none that was asked is left."""
        for _, _, node in sorted(self.answers):
            for candidate in nodes:
                if candidate is node:
                    return candidate
        return nodes[int(rng.random() * len(nodes))]


class Entry:
    """A probe's answer in a pool."""

    __slots__ = ("at", "in_flight", "latency", "node", "uses")

    def __init__(self, node: Node[Any], in_flight: int, latency: float, at: float) -> None:
        self.node = node
        self.in_flight = in_flight
        self.latency = latency
        self.at = at
        self.uses = 0


class Prequal:
    """Probes that come in beside the calls; the hot are avoided, of the cold the fastest is taken.

    Source: Wydrowski, Kleinberg, Rumble, Archer, "Load is not what you should balance: Introducing
    Prequal" (NSDI 2024), with its values: a pool of 16 answers of at most a second, three probes
    (`probing.AsksAlong`) and one removal a call, hot above the 0.84 quantile of calls in flight.
    """

    POOL, PROBES, REMOVALS, AGE, HOT, DELTA = 16, 3, 1, 1.0, 2.0**-0.25, 1.0

    def __init__(self) -> None:
        self._pool: list[Entry] = []
        self._seen: deque[int] = deque(maxlen=128)
        self._worst_next = False
        self._count = 1

    def load(self) -> Load:
        """Nothing to remember but the pool."""
        return PendingCount()

    def answered(self, entry: Entry, rng: random.Random) -> None:
        """A probe came back."""
        flow = (1.0 - self.POOL / max(self._count, 1)) * self.PROBES - self.REMOVALS
        uses = max(1.0, (1.0 + self.DELTA) / flow) if flow > 0.0 else float(self.POOL)
        entry.uses = int(uses) + (rng.random() < uses % 1.0)
        self._pool = [each for each in self._pool if each.node is not entry.node][1 - self.POOL :]
        self._pool.append(entry)
        self._seen.append(entry.in_flight)

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """The fastest of the cold, or the least hot; any while hardly an answer is there."""
        self._count = len(nodes)
        by_node = {id(node): node for node in nodes}
        self._pool = [
            each for each in self._pool if now - each.at <= self.AGE and id(each.node) in by_node
        ]
        if len(self._pool) < 2:
            return nodes[int(rng.random() * len(nodes))]
        hot = sorted(self._seen)[int(self.HOT * (len(self._seen) - 1))]
        cold = [each for each in self._pool if each.in_flight <= hot]
        best = (
            min(cold, key=lambda each: each.latency)
            if cold
            else min(self._pool, key=lambda each: each.in_flight)
        )
        chosen = by_node[id(best.node)]
        best.latency *= (best.in_flight + 2) / (best.in_flight + 1)
        best.in_flight += 1
        best.uses -= 1
        if best.uses <= 0:
            self._pool.remove(best)
        for _ in range(self.REMOVALS):
            self._remove(hot)
        return chosen

    def _remove(self, hot: int) -> None:
        """Removes in turn the oldest and the worst."""
        if not self._pool:
            return
        self._worst_next = not self._worst_next
        worst = self._pool[0]
        if self._worst_next:
            warm = [each for each in self._pool if each.in_flight > hot]
            worst = (
                max(warm, key=lambda each: each.in_flight)
                if warm
                else max(self._pool, key=lambda each: each.latency)
            )
        self._pool.remove(worst)
