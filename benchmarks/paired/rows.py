"""What a case hands back: figures of rounds, and what they should be."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be.

    Attributes:
        limit: The bound, itself allowed.
        at_least: Whether the bound is the lower one.
        worst: Whether every round has to keep it, and not the median alone: for counts of failures
            and for worst calls.
    """

    limit: float
    at_least: bool = False
    worst: bool = False

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        limit = f"{sign} {self.limit:g}" if self.limit or self.at_least else "0"
        return f"{limit} in every round" if self.worst else limit

    def met(self, row: Row) -> bool:
        """Whether a row keeps it."""
        if self.at_least:
            return (row.min if self.worst else row.median) >= self.limit
        return (row.max if self.worst else row.median) <= self.limit


def at_most(limit: float) -> Target:
    """The median must not be above ``limit``."""
    return Target(limit)


def at_least(limit: float) -> Target:
    """The median must not be below ``limit``."""
    return Target(limit, at_least=True)


def never_above(limit: float) -> Target:
    """No round may be above ``limit``."""
    return Target(limit, worst=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: its value in each round.

    Attributes:
        case: What was done.
        peer: Whom it is divided by, or, for a figure that is no ratio, whose it is.
        metric: What was measured, with its unit.
        values: One a round.
        target: What it should be; None for what is only told.
    """

    case: str
    peer: str
    metric: str
    values: tuple[float, ...]
    target: Target | None = None

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.values)

    @property
    def min(self) -> float:
        """Lowest round."""
        return min(self.values)

    @property
    def max(self) -> float:
        """Highest round."""
        return max(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.target is None else self.target.met(self)

    @property
    def is_ratio(self) -> bool:
        """Whether it is ours divided by a peer's."""
        return "÷" in self.metric

    def record(self) -> dict[str, Any]:
        """What report.json holds of it."""
        return {
            "case": self.case,
            "peer": self.peer,
            "metric": self.metric,
            "median": self.median,
            "min": self.min,
            "max": self.max,
            "rounds": len(self.values),
        }


def ratios(ours: Iterable[float], theirs: Iterable[float]) -> tuple[float, ...]:
    """Ours divided by theirs, round by round."""
    return tuple(mine / other for mine, other in zip(ours, theirs, strict=True))
