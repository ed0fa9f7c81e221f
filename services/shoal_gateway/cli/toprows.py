"""What ``shoal top`` shows: rows out of two looks, in an order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from shoal_gateway.lookout import Look, Sighting

# Jobs in one of these are over.
ENDED = ("CANCELLED", "DEAD", "FAILED", "SUCCEEDED")


@dataclass(frozen=True, slots=True)
class Row:
    """One replica.

    Attributes:
        calls: Calls that ended, per second, over its last 10 s; ours are among them.
        errors: Those that failed.
        in_flight: Calls that run.
        jobs: Jobs that have started there, per second, since the look before.
        latency: Milliseconds that its answer to us took.
    """

    service: str
    replica: str
    host: str
    version: str
    flavor: str
    state: str
    utilisation: float | None
    in_flight: int | None
    calls: float | None
    errors: float | None
    running: int | None
    slots: int | None
    jobs: float | None
    latency: float | None
    fault: str


class Column(NamedTuple):
    """What rows can be sorted by."""

    key: str
    field: str
    descending: bool = False


# By the key that chooses it. Figures begin with the largest: that is what one looks for.
COLUMNS: Mapping[str, Column] = {
    each.key: each
    for each in (
        Column("s", "service"),
        Column("r", "replica"),
        Column("h", "host"),
        Column("v", "version"),
        Column("a", "state"),
        Column("u", "utilisation", descending=True),
        Column("i", "in_flight", descending=True),
        Column("c", "calls", descending=True),
        Column("e", "errors", descending=True),
        Column("n", "running", descending=True),
        Column("j", "jobs", descending=True),
        Column("l", "latency", descending=True),
    )
}
BY_NAME = {each.field: each for each in COLUMNS.values()}


@dataclass(frozen=True, slots=True)
class Order:
    """How rows are sorted."""

    column: Column = COLUMNS["s"]
    reverse: bool = False

    def pressed(self, key: str) -> Order:
        """After a key: its column, or the other way round if it was chosen before."""
        column = COLUMNS.get(key)
        if column is None:
            return self
        if column == self.column:
            return replace(self, reverse=not self.reverse)
        return Order(column)

    def sorted(self, rows: Iterable[Row]) -> list[Row]:
        """The rows in this order; those that have no such value come last."""
        named = sorted(rows, key=lambda row: (row.service, row.flavor, row.replica))
        known = [row for row in named if getattr(row, self.column.field) is not None]
        known.sort(
            key=lambda row: getattr(row, self.column.field),
            reverse=self.column.descending != self.reverse,
        )
        return known + [row for row in named if getattr(row, self.column.field) is None]


def rows_of(now: Look, before: Look | None) -> list[Row]:
    """A row for each replica.

    Args:
        now: The last look.
        before: The one before; None: there are no rates of jobs yet.
    """
    earlier = {}
    if before is not None:
        earlier = {(each.service, *each.replica.identity): each for each in before.replicas}
    passed = now.at - before.at if before is not None else 0.0
    return [
        _row(each, earlier.get((each.service, *each.replica.identity)), passed)
        for each in now.replicas
    ]


def _row(seen: Sighting, before: Sighting | None, passed: float) -> Row:
    replica, report = seen.replica, seen.report
    # A job queue in front of slots is what a manager's load is; others have calls in flight.
    bounded = seen.slots is not None or (report is not None and report.utilisation > 0.001)
    return Row(
        service=seen.service,
        replica=replica.id,
        host=replica.host,
        version=replica.version,
        flavor=replica.flavor,
        state="SILENT" if seen.latency is None else str(replica.status),
        utilisation=report.utilisation if report is not None and bounded else None,
        in_flight=int(report.named.get("in_flight", 0)) if report is not None else None,
        calls=report.qps if report is not None else None,
        errors=report.eps if report is not None else None,
        running=seen.running,
        slots=seen.slots,
        jobs=_rate(seen.started, before.started if before is not None else None, passed),
        latency=seen.latency * 1e3 if seen.latency is not None else None,
        fault=seen.fault,
    )


def _rate(now: int | None, before: int | None, passed: float) -> float | None:
    if now is None or before is None or passed <= 0.0:
        return None
    # One that has begun anew under the same name and port counts from 0.
    return max(now - before, 0) / passed


@dataclass(frozen=True, slots=True)
class Jobs:
    """The fleet's jobs.

    Attributes:
        counts: How many there are in each state.
        ended: Jobs that have ended, per second, since the look before; None at the first.
    """

    counts: Mapping[str, int]
    ended: float | None


def jobs_of(now: Look, before: Look | None) -> Jobs | None:
    """Of the fleet; None when no registry answered."""
    if now.jobs is None:
        return None
    over = sum(now.jobs.get(state, 0) for state in ENDED)
    ended = None
    if before is not None and before.jobs is not None:
        had = sum(before.jobs.get(state, 0) for state in ENDED)
        ended = _rate(over, had, now.at - before.at)
    return Jobs(now.jobs, ended)


def document(at: float, look: Look, rows: Iterable[Row], jobs: Jobs | None) -> dict[str, Any]:
    """One refresh for scripts; figures that are not known are null.

    Args:
        at: Seconds since 1970.
        look: The look that it is of.
        rows: In their order.
        jobs: The fleet's.
    """
    return {
        "at": round(at, 3),
        "directory": look.directory,
        "jobs": (
            None
            if jobs is None
            else {"by_state": dict(jobs.counts), "ended_per_second": _round(jobs.ended)}
        ),
        "replicas": [
            {
                "service": row.service,
                "id": row.replica,
                "host": row.host,
                "version": row.version,
                "flavor": row.flavor,
                "state": row.state,
                "utilisation": _round(row.utilisation),
                "calls_in_flight": row.in_flight,
                "calls_per_second": _round(row.calls),
                "errors_per_second": _round(row.errors),
                "jobs_running": row.running,
                "slots": row.slots,
                "jobs_per_second": _round(row.jobs),
                "latency_ms": _round(row.latency),
                "fault": row.fault or None,
            }
            for row in rows
        ],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
