"""Locality: the caller's own zone while it has capacity, and the others more and more."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from shoal_balancer.choice import Policy
from shoal_balancer.load import Load
from shoal_balancer.node import Node

N = TypeVar("N", bound=Node[Any])


class Locality:
    """Another policy's choice within the caller's zone, unless it costs much more than one outside.

    Both sides are asked for their choice, and the outside one must be ``bias`` times cheaper, with
    this call added. So the zone keeps its calls while it is well, loses them one by one as queues
    grow, and all of them when it is gone. What crossing zones costs need not be configured where
    the metric is a latency: it is measured.

    Args:
        zone: The caller's own, as replicas announce theirs.
        inner: Load metric and choice within each side.
        bias: How many times cheaper a replica outside must be, at least 1.
    """

    def __init__(self, zone: str, inner: Policy, *, bias: float = 2.0) -> None:
        if not bias >= 1.0:
            raise ValueError(f"bias must be at least 1, not {bias!r}")
        if not zone:
            raise ValueError("zone must name the caller's own zone")
        self.zone = zone
        self.inner = inner
        self.bias = bias
        self.reports = getattr(inner, "reports", False)
        self._known: tuple[Sequence[Any], tuple[Any, ...], tuple[Any, ...]] = ((), (), ())

    def __repr__(self) -> str:
        return f"Locality({self.zone!r}, {self.inner!r}, bias={self.bias:g})"

    def load(self) -> Load:
        """The inner policy's."""
        return self.inner.load()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """One of the zone, or one outside that is much cheaper."""
        known, near, far = self._known
        if known is not nodes:
            near = tuple(node for node in nodes if node.replica.zone == self.zone)
            far = tuple(node for node in nodes if node.replica.zone != self.zone)
            self._known = (nodes, near, far)
        if not near or not far:
            return self.inner.choose(nodes, now, rng)
        here: N = self.inner.choose(near, now, rng)
        there: N = self.inner.choose(far, now, rng)
        # With this call added, so that an idle replica outside is not infinitely cheaper.
        cost = here.load.cost(len(here.pending) + 1, now)
        return here if cost <= self.bias * there.load.cost(len(there.pending) + 1, now) else there
