"""How a run is made: how many rounds, in which order, and who is told of progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks.paired.load import Run

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bench:
    """One run's settings.

    Attributes:
        rounds: How often everything is measured.
        quick: Whether to measure only as long as it takes to see that it works.
        told: Told of each round as it begins: case, number from 0, rounds in all.
        remarks: What the reader must know: a peer that is not installed, for example.
        runs: The last load of some cases, by case and caller, to be drawn.
    """

    rounds: int = 7
    quick: bool = False
    told: Callable[[str, int, int], object] = lambda *_: None
    remarks: list[str] = field(default_factory=list)
    runs: dict[tuple[str, str], Run] = field(default_factory=dict)

    def amount(self, full: int, quick: int) -> int:
        """Calls, or whatever is counted, of one round."""
        return quick if self.quick else full

    def seconds(self, full: float, quick: float) -> float:
        """How long one measurement lasts."""
        return quick if self.quick else full

    def each(self, case: str, rounds: int | None = None) -> Iterator[int]:
        """The rounds of a case."""
        count = rounds or self.rounds
        for number in range(count):
            self.told(case, number, count)
            yield number

    def remark(self, text: str) -> None:
        """Adds a remark, once."""
        if text not in self.remarks:
            self.remarks.append(text)


def turned(participants: Sequence[T], number: int) -> Sequence[T]:
    """The participants in the order of round ``number``: everyone comes first in turn.

    >>> turned("abc", 1)
    ['b', 'c', 'a']
    """
    first = number % len(participants)
    return [*participants[first:], *participants[:first]]
