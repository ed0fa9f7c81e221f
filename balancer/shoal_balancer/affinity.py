"""Rendezvous hashing: the calls of one key go to one replica, as long as it can bear them."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from shoal_balancer.choice import cheaper_of_two
from shoal_balancer.load import Load, PendingCount
from shoal_balancer.node import Node

N = TypeVar("N", bound=Node[Any])

_MASK = (1 << 64) - 1


def digest(text: bytes) -> int:
    """64 bits of a text, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def mixed(one: int, other: int) -> int:
    """64 bits of two digests, at a tenth of the price of hashing both again.

    Source: the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
    """
    bits = (one ^ (other * 0x9E3779B97F4A7C15)) & _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


def attraction(bits: int, weight: float) -> float:
    """How much a replica of some weight draws a key, above 0; the highest wins.

    Source: weighted rendezvous hashing (Schindelhauer, Schomaker 2005): with ``-weight / ln(u)``
    each replica wins a share of the keys that is its share of the weight.
    """
    return -weight / math.log((bits + 0.5) / 2.0**64)


class Rendezvous:
    """The replica that a key's hash draws most, if it has not too many calls already.

    All callers agree on it without speaking to each other. When a replica comes or goes, only its
    own keys move. A replica takes no call while it has more than ``bound`` times the mean of this
    caller's calls in flight; the key's next replica gets it.

    Calls without a key go to the less loaded of two. A pick looks at every replica, some 0.5 µs
    each: where there are hundreds, let each caller have a subset.

    Source: Thaler, Ravishankar 1996 (rendezvous); Mirrokni, Thorup, Zadimoghaddam 2016 (bounded
    load).

    Args:
        bound: Calls in flight that a replica may have at most, over the mean; above 1.
        least: Calls in flight that it may have in any case, so that a few calls at once don't
            scatter a key where there is hardly any load.
    """

    def __init__(self, bound: float = 1.25, least: int = 4) -> None:
        if not bound > 1.0:
            raise ValueError(f"bound must be above 1, not {bound!r}")
        self.bound = bound
        self.least = least
        self._known: tuple[Sequence[Node[Any]], tuple[int, ...]] = ((), ())

    def __repr__(self) -> str:
        return f"Rendezvous(bound={self.bound:g})"

    def load(self) -> Load:
        """The calls in flight."""
        return PendingCount()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """For a call without a key: the less loaded of two."""
        return cheaper_of_two(nodes, now, rng)

    def choose_for(self, key: bytes, nodes: Sequence[N], now: float, rng: random.Random) -> N:  # noqa: ARG002
        """The key's replica, or the next one that has room."""
        known, ids = self._known
        if known is not nodes:
            ids = tuple(digest(node.replica.id.encode()) for node in nodes)
            self._known = (nodes, ids)
        hashed = digest(key)
        draws = [
            attraction(mixed(hashed, bits), max(node.replica.weight, 0.0))
            for node, bits in zip(nodes, ids, strict=True)
        ]
        total = sum(len(node.pending) for node in nodes) + 1
        room = max(self.least, math.ceil(self.bound * total / len(nodes)))
        best = max(range(len(nodes)), key=draws.__getitem__)
        if len(nodes[best].pending) < room:
            return nodes[best]
        for index in sorted(range(len(nodes)), key=draws.__getitem__, reverse=True):
            if len(nodes[index].pending) < room:
                return nodes[index]
        # Calls of other threads have filled them since; more than the mean everywhere can't last.
        return nodes[best]
