"""Canary: an exact share of the calls for a version, whatever number of replicas it has."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from shoal_balancer.choice import Policy
from shoal_balancer.load import Load
from shoal_balancer.node import Node
from shoal_balancer.versions import VersionRange, is_range

N = TypeVar("N", bound=Node[Any])

# Multiples of it, modulo 1, fill every interval evenly: of n of them the number in one of length s
# is n × s but for a few (Weyl 1916; Knuth, TAOCP 3, 6.4). Unlike "every tenth" it falls in step
# with nothing: a caller that asks two methods in turn sends both to the canary.
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


class Canary:
    """Another policy's choice among replicas of one version, the version drawn by given shares.

        shoal.Canary({"1.1": 0.05}, shoal.PeakEwma())   # 5 % of the calls, be it 1 replica or 30

    The rest goes to all other versions. A version without a ready replica gets nothing, and the
    others get its share; where only versions with a share are ready, they get everything. The share
    is of picks: a retry is one, and excludes what was tried. A newcomer that starts slowly
    (`SlowStart`) has less at first.

    Args:
        shares: By version as replicas announce it, or by a range of versions ("==1.1.*", ">=2");
            more than 0, at most 1 together. A version that several stand for belongs to the first.
        inner: Load metric and choice within a version.

    Raises:
        ValueError: the shares can't be, or a range can't be read.
    """

    def __init__(self, shares: Mapping[str, float], inner: Policy) -> None:
        if not shares or not all(0.0 < share <= 1.0 for share in shares.values()):
            raise ValueError(f"shares must be more than 0 and at most 1, not {dict(shares)!r}")
        if sum(shares.values()) > 1.0 + 1e-9:
            raise ValueError(f"shares must be at most 1 together, not {sum(shares.values()):g}")
        self.shares = dict(shares)
        self._ranges = {each: VersionRange.parse(each) for each in shares if is_range(each)}
        self.inner = inner
        self.reports = getattr(inner, "reports", False)
        self._turn: itertools.count[int] | None = None
        self._known: tuple[Sequence[Any], tuple[tuple[float, tuple[Any, ...]], ...]] = ((), ())

    def __repr__(self) -> str:
        return f"Canary({self.shares!r}, {self.inner!r})"

    def load(self) -> Load:
        """The inner policy's."""
        return self.inner.load()

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """One of the version whose turn it is."""
        known, groups = self._known
        if known is not nodes:
            groups = self._groups(nodes)
            self._known = (nodes, groups)
        wanted: Sequence[N] = groups[-1][1]
        if len(groups) > 1:
            drawn = self._drawn(rng)
            for below, group in groups:
                if drawn < below:
                    wanted = group
                    break
        return self.inner.choose(wanted, now, rng)

    def _drawn(self, rng: random.Random) -> float:
        turn = self._turn
        if turn is None:
            # A random start, so that many callers' canary calls don't come together.
            turn = self._turn = itertools.count(rng.randrange(1 << 20))
        # next() on a count is atomic: no two threads get the same turn.
        return next(turn) * _GOLDEN % 1.0

    def _share_of(self, version: str) -> str | None:
        """The share that a version has a part of; None when it belongs to the rest."""
        if version in self.shares:
            return version
        return next((key for key, each in self._ranges.items() if each.allows(version)), None)

    def _groups(self, nodes: Sequence[N]) -> tuple[tuple[float, tuple[N, ...]], ...]:
        """Versions with ready replicas, each with the end of its part of 0 to 1; the rest last."""
        by_share: dict[str | None, list[N]] = {each: [] for each in self.shares}
        for node in nodes:
            by_share.setdefault(self._share_of(node.replica.version), []).append(node)
        rest = tuple(by_share.pop(None, ()))
        groups: list[tuple[float, tuple[N, ...]]] = []
        end = 0.0
        for version, share in self.shares.items():
            group = tuple(by_share[version])
            if group:
                end += share
                groups.append((end, group))
        if rest:
            groups.append((1.0, rest))
            if end >= 1.0 - 1e-9:
                groups.pop()  # all is given away, and somebody is there to take it
        elif end < 1.0:
            groups = [(below / end, group) for below, group in groups]
        return tuple(groups)
