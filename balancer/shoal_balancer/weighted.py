"""Policies that share calls by weight: what replicas announce, times what their reports show.

The weights of a set are worked out once a second and kept in a frozen table, so that a pick is a
few steps however large the set is.
"""

from __future__ import annotations

import bisect
import itertools
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from shoal_balancer.load import Load, PendingCount
from shoal_balancer.node import Node
from shoal_balancer.report import LoadReport

N = TypeVar("N", bound=Node[Any])

# Weights in a table are whole numbers up to this, so that turns are exact.
TOP = 65_535
# No weight counts for more than this many times the mean: looking for the next turn stays short.
MOST = 10.0


class ReportedWeight(PendingCount):
    """What a replica's reports say it can bear: calls per second ÷ utilisation.

    Source: gRFC A58, with its defaults.

    Args:
        blackout: Seconds after the first report in which reports are not believed yet, for a
            replica that has just started looks faster or slower than it is.
        expiry: Seconds after which a report is forgotten.
        error_penalty: How many times the share of failed calls is added to the utilisation.
    """

    __slots__ = ("_at", "_blackout", "_error_penalty", "_expiry", "_since", "_weight")

    def __init__(self, blackout: float, expiry: float, error_penalty: float) -> None:
        self._blackout = blackout
        self._expiry = expiry
        self._error_penalty = error_penalty
        self._since: float | None = None
        self._at = 0.0
        self._weight = 0.0

    def report(self, report: LoadReport, now: float) -> None:
        """Takes a report in; one without calls or without utilisation says nothing."""
        if report.qps <= 0.0 or report.utilisation <= 0.0:
            return
        errors = report.eps / report.qps * self._error_penalty
        self._weight = report.qps / (report.utilisation + errors)
        if self._since is None or now - self._at > self._expiry:
            self._since = now
        self._at = now

    def weight(self, now: float) -> float | None:
        """Calls per second at full utilisation; None while nothing is believed."""
        since = self._since
        if since is None or now - since < self._blackout or now - self._at > self._expiry:
            return None
        return self._weight


@dataclass(frozen=True, slots=True)
class _Table:
    """Weights of one set of nodes.

    Attributes:
        nodes: Whose; the very object, by which the table is recognised.
        until: When it is worked out anew.
        shares: A whole number up to `TOP` for each node.
        sums: Running sums of the shares.
    """

    nodes: Sequence[Node[Any]]
    until: float
    shares: tuple[int, ...]
    sums: tuple[int, ...]


class _Weighted:
    """Weights by announcement and by reports.

    Args:
        reports: Whether to go by load reports, where servers send them.
        period: Seconds for which weights hold.
        blackout: Seconds after the first report in which reports are not believed yet.
        expiry: Seconds after which a report is forgotten.
        error_penalty: How many times the share of failed calls is added to the utilisation.
    """

    def __init__(
        self,
        *,
        reports: bool = True,
        period: float = 1.0,
        blackout: float = 10.0,
        expiry: float = 180.0,
        error_penalty: float = 1.0,
    ) -> None:
        self.reports = reports
        self._period = period
        self._believe = (blackout, expiry, error_penalty)
        self._table: _Table | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reports={self.reports})"

    def load(self) -> Load:
        """Reports of one replica."""
        return ReportedWeight(*self._believe)

    def weights(self, nodes: Sequence[Node[Any]], now: float) -> list[float]:
        """What each node counts for: announced weight × reported; unknown ones count as the mean.

        Without any report all count as they announce.
        """
        reported = [
            load.weight(now) if self.reports and isinstance(load, ReportedWeight) else None
            for load in (node.load for node in nodes)
        ]
        known = [weight for weight in reported if weight is not None]
        mean = statistics.fmean(known) if known else 1.0
        found = [
            max(node.replica.weight, 0.0) * (mean if weight is None else weight)
            for node, weight in zip(nodes, reported, strict=True)
        ]
        return found if any(found) else [1.0] * len(found)

    def _current(self, nodes: Sequence[Node[Any]], now: float) -> _Table:
        table = self._table
        if table is None or table.nodes is not nodes or now >= table.until:
            weights = self.weights(nodes, now)
            limit = min(max(weights), MOST * statistics.fmean(weights))
            shares = tuple(
                max(1, round(min(weight, limit) / limit * TOP)) if weight else 0
                for weight in weights
            )
            table = _Table(nodes, now + self._period, shares, tuple(itertools.accumulate(shares)))
            self._table = table
        return table


class WeightedRoundRobin(_Weighted):
    """In turns, each as often as its weight says, and evenly spread over time.

    Source: the static stride scheduler of gRPC's weighted round robin: in each round a node's
    account grows by its share, and it has a turn whenever the account passes the top. All that
    moves is one counter, so that threads need no lock. Weights as in gRFC A58.
    """

    _turn: itertools.count[int] | None = None

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """The next whose turn it is."""
        shares = self._current(nodes, now).shares
        turn = self._turn
        if turn is None:
            turn = self._turn = itertools.count(rng.randrange(1 << 20))
        count = len(nodes)
        while True:
            # next() on a count is atomic: no two threads get the same turn.
            lap, index = divmod(next(turn), count)
            share = shares[index]
            # Half a lap apart, lest all pass the top in the same round.
            account = share * lap + index * (TOP // 2)
            if account % TOP + share >= TOP:
                return nodes[index]


class WeightedRandom(_Weighted):
    """Any, with chances as the weights are."""

    def choose(self, nodes: Sequence[N], now: float, rng: random.Random) -> N:
        """A draw."""
        sums = self._current(nodes, now).sums
        return nodes[bisect.bisect_right(sums, int(rng.random() * sums[-1]))]
