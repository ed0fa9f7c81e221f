"""Policies: which of the replicas that may be called gets the next call.

A policy is two methods (`Policy`): what to remember about each replica, and how to choose among
them. The nodes that a policy is given are never empty and differ from call to call as replicas
come, go, are ejected or were tried already; a policy keeps at most the last ones, to know them
again.

Two more things a policy may have: ``reports = True`` when its metric wants the load reports of
servers, and ``choose_for`` when it goes by a call's key (`KeyedPolicy`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from shoal_balancer.load import Load, PendingCount
from shoal_balancer.load import PeakEwma as PeakEwmaLoad
from shoal_balancer.node import Node

N = TypeVar("N", bound=Node[Any])


class Policy(Protocol):
    """A load metric and a choice."""

    def load(self) -> Load:
        """A fresh metric for a replica that was never seen."""

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """One of ``nodes``; called by several threads at once, on each call's way.

        Args:
            nodes: Those that may be called, at least one.
            now: Seconds on the balancer's clock, as their loads want it.
            rng: Randomness that several threads may use.
        """


class KeyedPolicy(Policy, Protocol):
    """A policy that can keep the calls of one key on one replica."""

    def choose_for(self, key: bytes, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """One of ``nodes`` for a call with a key; `choose` is for calls without.

        Args:
            key: What the affinity goes by.
            nodes: Those that may be called, at least one.
            now: Seconds on the balancer's clock.
            rng: Randomness that several threads may use.
        """


def two_distinct(count: int, rng: random.Random) -> tuple[int, int]:
    """Two different indices below ``count`` (at least 2), uniform, in two draws without rejection.

    The second draw is from one fewer and skips over the first.
    Source: Finagle's ``P2CPick``; "The Power of Two Choices", Mitzenmacher 2001.
    """
    # int(random() * n) is a third of the time of randrange(n); its bias is below 2**-40 here.
    draw = rng.random
    first = int(draw() * count)
    second = int(draw() * (count - 1))
    if second >= first:
        second += 1
    return first, second


def cheaper_of_two(nodes: Sequence[N], now: float, rng: random.Random) -> N:
    """The cheaper of two drawn at random; the draw is random, so a tie is broken at random."""
    count = len(nodes)
    if count == 1:
        return nodes[0]
    first, second = two_distinct(count, rng)
    one, other = nodes[first], nodes[second]
    if other.load.cost(len(other.pending), now) < one.load.cost(len(one.pending), now):
        return other
    return one


class PeakEwma:
    """Power of two choices over peak EWMA latency × (calls in flight + 1). The default.

    Args:
        tau: Time constant of the average, seconds. Larger remembers a slow replica longer.
    """

    def __init__(self, tau: float = 10.0) -> None:
        if not tau > 0.0:
            raise ValueError(f"tau must be a positive number of seconds, not {tau!r}")
        self.tau = tau

    def __repr__(self) -> str:
        return f"PeakEwma(tau={self.tau:g})"

    def load(self) -> Load:
        """A peak EWMA."""
        return PeakEwmaLoad(self.tau)

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """The cheaper of two."""
        return cheaper_of_two(nodes, now, rng)


class LeastLoaded:
    """Power of two choices over the number of calls in flight."""

    def __repr__(self) -> str:
        return "LeastLoaded()"

    def load(self) -> Load:
        """The calls in flight."""
        return PendingCount()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """The cheaper of two."""
        return cheaper_of_two(nodes, now, rng)


class RoundRobin:
    """One after the other, from a random start, so that many callers don't march in step."""

    def __init__(self) -> None:
        self._turn: itertools.count[int] | None = None

    def __repr__(self) -> str:
        return "RoundRobin()"

    def load(self) -> Load:
        """The calls in flight, for display."""
        return PendingCount()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:  # noqa: ARG002
        """The next."""
        turn = self._turn
        if turn is None:
            turn = self._turn = itertools.count(rng.randrange(1 << 30))
        # next() on a count is atomic: no two threads get the same turn.
        return nodes[next(turn) % len(nodes)]


class Random:
    """Any, with equal chance."""

    def __repr__(self) -> str:
        return "Random()"

    def load(self) -> Load:
        """The calls in flight, for display."""
        return PendingCount()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:  # noqa: ARG002
        """Any."""
        return nodes[int(rng.random() * len(nodes))]
