"""Which replica served how many calls, and how fast. Pure.

Each process of a load test keeps its own `Spread`; what it has counted since the last time goes to
the main process as a message, which is added to the sum. So latencies are kept as counts of
buckets, which can be added, and not as single values, which would grow with the run.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Each bucket is this much wider than the one below: what is read from them is 1 % off at most.
GROWTH = 1.02
# Milliseconds; what is faster is counted as this.
FINEST = 0.01
# The replica of calls that none served: refused by all, or nobody was there.
NOBODY = "-"


@dataclass(slots=True)
class Latencies:
    """How many values lie in each bucket.

    Attributes:
        buckets: Count by the bucket's number.
    """

    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, milliseconds: float) -> None:
        """Counts a value."""
        ratio = max(milliseconds, FINEST) / FINEST
        self.buckets[math.floor(math.log(ratio) / math.log(GROWTH))] += 1

    def quantile(self, share: float) -> float:
        """The value that ``share`` of all do not exceed, in milliseconds; nan when there is none.

        Args:
            share: 0 to 1.
        """
        wanted = share * self.buckets.total()
        passed = 0
        for bucket in sorted(self.buckets):
            passed += self.buckets[bucket]
            if passed >= wanted:
                # The bucket's middle.
                return float(FINEST * GROWTH ** (bucket + 0.5))
        return math.nan


@dataclass(slots=True)
class Tally:
    """The calls that one replica has served.

    Attributes:
        calls: How many, failed ones too.
        failures: How many of them failed.
        latencies: Of those that did not fail.
    """

    calls: int = 0
    failures: int = 0
    latencies: Latencies = field(default_factory=Latencies)


@dataclass(frozen=True, slots=True)
class Row:
    """One replica in the report; times in milliseconds, None where no call succeeded."""

    service: str
    replica: str
    calls: int
    share: float
    failures: int
    median_ms: float | None
    p95_ms: float | None


class Spread:
    """Calls by service and replica."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}

    def add(self, service: str, replica: str, milliseconds: float, *, failed: bool) -> None:
        """Counts a call.

        Args:
            service: What was called.
            replica: Who served it, or `NOBODY`.
            milliseconds: How long it took.
            failed: Whether it ended with an error.
        """
        tally = self._tallies.setdefault((service, replica), Tally())
        tally.calls += 1
        if failed:
            tally.failures += 1
        else:
            tally.latencies.add(milliseconds)

    def take(self) -> list[dict[str, Any]]:
        """What was counted since the last time, as a message; here it is forgotten."""
        message = [
            {
                "service": service,
                "replica": replica,
                "calls": tally.calls,
                "failures": tally.failures,
                # Pairs, for not every encoding lets a number be a key.
                "buckets": sorted(tally.latencies.buckets.items()),
            }
            for (service, replica), tally in self._tallies.items()
        ]
        self._tallies.clear()
        return message

    def merge(self, message: Iterable[dict[str, Any]]) -> None:
        """Adds what another process has counted."""
        for part in message:
            tally = self._tallies.setdefault((part["service"], part["replica"]), Tally())
            tally.calls += part["calls"]
            tally.failures += part["failures"]
            for bucket, count in part["buckets"]:
                tally.latencies.buckets[bucket] += count

    def rows(self) -> list[Row]:
        """The report: by service, then replica."""
        totals: Counter[str] = Counter()
        for (service, _), tally in self._tallies.items():
            totals[service] += tally.calls
        return [
            Row(
                service,
                replica,
                tally.calls,
                round(tally.calls / totals[service], 4),
                tally.failures,
                _rounded(tally.latencies.quantile(0.5)),
                _rounded(tally.latencies.quantile(0.95)),
            )
            for (service, replica), tally in sorted(self._tallies.items())
        ]


def documents(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """For a JSON file."""
    return [asdict(row) for row in rows]


def as_csv(rows: Iterable[Row]) -> str:
    """For a spreadsheet; a time that is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(documents(rows))
    return text.getvalue()


def as_table(rows: Sequence[Row]) -> str:
    """For the console."""
    if not rows:
        return "No call was made, so there is no spread over replicas.\n"
    header = ("service", "replica", "calls", "share", "failed", "median ms", "p95 ms")
    cells = [header] + [
        (
            row.service,
            row.replica,
            str(row.calls),
            f"{row.share:.1%}",
            str(row.failures),
            _shown(row.median_ms),
            _shown(row.p95_ms),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = []
    for line in cells:
        names = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        lines.append("  ".join([*names, *numbers]))
    return "\n".join(lines) + "\n"


def _rounded(milliseconds: float) -> float | None:
    return None if math.isnan(milliseconds) else round(milliseconds, 3)


def _shown(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.2f}"
