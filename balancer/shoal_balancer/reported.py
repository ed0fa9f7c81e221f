"""Least reported: the shortest queue among many, by what replicas said last.

A caller's own calls in flight tell of a replica's queue only while the caller is one of few. What
replicas report with each answer tells of everybody's calls, but it ages: with a hundred callers the
last word of a replica is a hundred answers old. So each report is believed less with its age, and
what is no longer believed counts as the mean. Old reports are then neither trusted nor avoided, and
one that has just said that it is idle is preferred. Where most is stale, looking at two finds
nothing fresh; the replicas that were called last have just been heard of.

The figures are in docs/simulation.md.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from shoal_balancer.load import Load, PendingCount
from shoal_balancer.node import Node
from shoal_balancer.report import LoadReport

N = TypeVar("N", bound=Node[Any])

# Ages are measured in calls: a queue is another one after about three calls' time.
BELIEF = 3.0
# Weight of a new sample in the means over all replicas.
WEIGHT = 0.02
# A failure counts like so many times what a replica takes at once.
PENALTY = 5.0


class Means:
    """What one caller sees on average, of all replicas; updated without a lock.

    Attributes:
        load: Calls at a replica, running and waiting, ÷ those that it takes at once.
        capacity: Calls that a replica takes at once, where that is known of none.
        latency: Seconds; 0 before the first answer.
    """

    __slots__ = ("_heard", "capacity", "latency", "load")

    def __init__(self) -> None:
        self.load = 0.0
        self.capacity = 1.0
        self._heard = False
        self.latency = 0.0

    def saw_load(self, load: float) -> None:
        """A replica reported its load."""
        # The first word is all there is: a prior of our own could make the only one that is known
        # look good for ever, or bad.
        self.load += (load - self.load) * (WEIGHT if self._heard else 1.0)
        self._heard = True

    def saw_latency(self, latency: float) -> None:
        """A replica answered."""
        self.latency += (latency - self.latency) * (WEIGHT if self.latency else 1.0)


class ReportedQueue(PendingCount):
    """A replica's load as it was reported, fading into the mean, and this caller's own calls.

    Args:
        means: Of all replicas of the policy.
    """

    __slots__ = ("_at", "_capacity", "_load", "_means")

    def __init__(self, means: Means) -> None:
        self._means = means
        self._load = 0.0
        self._at = -math.inf
        # Unknown until a report tells of calls in flight: one of an idle replica has none.
        self._capacity = 0.0

    def report(self, report: LoadReport, now: float) -> None:
        """Takes a report in; with named calls in flight it tells the capacity, too."""
        load = report.utilisation
        queue = report.named.get("in_flight", 0.0)
        if queue > 0.0 and load > 0.0:
            self._means.capacity = self._capacity = queue / load
        self._load = load
        self._at = now
        self._means.saw_load(load)

    def cost(self, in_flight: int, now: float) -> float:
        """Calls that one more would meet there ÷ calls that the replica takes at once."""
        means = self._means
        load = means.load
        fades = BELIEF * means.latency
        if fades > 0.0:
            load += (self._load - load) * math.exp(min(0.0, self._at - now) / fades)
        return load + in_flight / (self._capacity or means.capacity)

    def observe(self, latency: float, now: float) -> None:  # noqa: ARG002 - the protocol's shape
        """A call's latency says how long reports hold."""
        self._means.saw_latency(latency)

    def penalize(self, latency: float, now: float) -> None:  # noqa: ARG002 - likewise
        """A failure makes the replica look busy, until the next report."""
        self._load += PENALTY
        self._at = now


class LeastReported:
    """Of ten random replicas and the ten called last the one whose reported queue is the shortest.

    For services with many callers, whose servers report their load (``load_reports=True``). Servers
    that don't are taken for average ones, so that own calls in flight decide. A pick takes about
    0.5 µs for each replica that it looks at.

    Source: load balancing with memory (Mitzenmacher, Prabhakar, Shah 2002) with reports on answers
    in place of probes (Prequal, Wydrowski et al. 2024).

    Args:
        among: Replicas that a pick looks at: one half at random, which is fair to all, and one half
            the last ones that were called, whose reports are fresh.
    """

    reports = True

    def __init__(self, among: int = 20) -> None:
        if among < 2:
            raise ValueError(f"among must be at least 2, not {among!r}")
        self.among = among
        self._means = Means()
        # A ring: writing one of its places is atomic, so that threads need no lock.
        self._recent: list[Node[Any] | None] = [None] * (among // 2)
        self._turn = itertools.count()

    def __repr__(self) -> str:
        return f"LeastReported(among={self.among})"

    def load(self) -> Load:
        """What one replica reported."""
        return ReportedQueue(self._means)

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """The one with the shortest queue of those drawn, or of all where they are few."""
        count = len(nodes)
        draw = rng.random
        # A random start, so that ties are broken at random.
        start = int(draw() * count)
        best = nodes[start]
        least = best.load.cost(len(best.pending), now)
        few = count <= self.among
        if few:
            others = (nodes[start - offset] for offset in range(1, count))
        else:
            others = (nodes[int(draw() * count)] for _ in range((self.among - 1) // 2))
        for node in others:
            cost = node.load.cost(len(node.pending), now)
            if cost < least:
                best, least = node, cost
        return best if few else self._or_recent(best, least, nodes, now)

    def _or_recent(self, best: N, least: float, nodes: Sequence[N], now: float) -> N:
        """One of those that were called last, if it is cheaper; remembers the choice."""
        recent = self._recent
        for node in recent:
            if node is not None:
                cost = node.load.cost(len(node.pending), now)
                # It may have left since, or be one that this call has tried.
                if cost < least and node in nodes:
                    best, least = cast("N", node), cost
        recent[next(self._turn) % len(recent)] = best
        return best
