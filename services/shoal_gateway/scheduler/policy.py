"""Which app manager is offered a job: the pick of a replica is the routing of a job.

An offer is a short call, so calls in flight and their latency say nothing about how busy a manager
is. Managers say with each answer how full they are, and offers go to the emptiest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from shoal_balancer import LeastLoaded, Load, Node, Replica

N = TypeVar("N", bound=Node[Any])

# Seconds after which what a manager said is down to 1/e: jobs end, and other schedulers fill.
FORGET = 2.0


class ByRoom:
    """The emptiest of all managers, by what each said last; ties are broken at random.

    It looks at all of them and not at two: there are dozens at most, offers are rare compared with
    calls, and a full manager that is asked costs a round trip.
    """

    def __init__(self, forget: float = FORGET) -> None:
        self._forget = forget
        self._said: dict[str, tuple[float, float]] = {}
        self._loads = LeastLoaded()

    def __repr__(self) -> str:
        return f"ByRoom(forget={self._forget:g})"

    def said(self, replica: Replica, utilisation: float, now: float) -> None:
        """Remembers how full a manager is, on the balancer's clock (monotonic)."""
        self._said[replica.id] = (utilisation, now)

    def load(self) -> Load:
        """The calls in flight, for display."""
        return self._loads.load()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """The emptiest; each offer that is out counts like a manager that is full."""
        return min(nodes, key=lambda node: (self._cost(node, now), rng.random()))

    def _cost(self, node: Node[Any], now: float) -> float:
        utilisation, at = self._said.get(node.replica.id, (0.0, now))
        return utilisation * math.exp(-max(0.0, now - at) / self._forget) + node.in_flight
