"""How many users there are at which moment: steps, a spike, a soak. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Shape(Protocol):
    """A course of users over time."""

    def users(self, seconds: float) -> int | None:
        """How many there are, that long after the start; None when it is over."""


@dataclass(frozen=True, slots=True)
class Steps:
    """As many more with each step: shows where more users stop to mean more calls.

    Attributes:
        step: Users that each step adds.
        count: Steps.
        hold: Seconds of each.
    """

    step: int
    count: int
    hold: float

    def users(self, seconds: float) -> int | None:
        """See `Shape`."""
        number = int(seconds // self.hold)
        return self.step * (number + 1) if number < self.count else None


@dataclass(frozen=True, slots=True)
class Spike:
    """Few, suddenly many, and few again: shows whether things come back by themselves.

    Attributes:
        base: Users before and after.
        peak: Users in between.
        hold: Seconds of each of the three parts.
    """

    base: int
    peak: int
    hold: float

    def users(self, seconds: float) -> int | None:
        """See `Shape`."""
        part = int(seconds // self.hold)
        return (self.base, self.peak, self.base)[part] if part < 3 else None


@dataclass(frozen=True, slots=True)
class Soak:
    """The same for long: shows what grows when it should not.

    Attributes:
        count: Users.
        ramp: Seconds until all are there.
        hold: Seconds after that.
    """

    count: int
    ramp: float
    hold: float

    def users(self, seconds: float) -> int | None:
        """See `Shape`."""
        if seconds >= self.ramp + self.hold:
            return None
        if seconds >= self.ramp:
            return self.count
        return max(1, round(self.count * seconds / self.ramp))
