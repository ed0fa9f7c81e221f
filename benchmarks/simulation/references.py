"""What nobody can build: policies that see every replica's true queue at the moment of the pick."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from shoal_balancer import Load, Node
from shoal_balancer.choice import two_distinct
from shoal_balancer.load import PendingCount

N = TypeVar("N", bound=Node[Any])


class ShortestQueue:
    """The bound: of all replicas the one with the shortest true delay, ties at random."""

    def load(self) -> Load:
        """Nothing to remember."""
        return PendingCount()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:  # noqa: ARG002
        """The shortest."""
        best: list[N] = []
        shortest = float("inf")
        for node in nodes:
            delay = node.endpoint.delay
            if delay < shortest:
                shortest, best = delay, [node]
            elif delay == shortest:
                best.append(node)
        return best[int(rng.random() * len(best))]


class IdealP2C:
    """Of two random replicas the one with the shorter true delay."""

    def load(self) -> Load:
        """Nothing to remember."""
        return PendingCount()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:  # noqa: ARG002
        """The shorter of two."""
        if len(nodes) == 1:
            return nodes[0]
        one, other = (nodes[index] for index in two_distinct(len(nodes), rng))
        return other if other.endpoint.delay < one.endpoint.delay else one
