"""Slow start: a newcomer's share grows, for it is cold: no caches, no compiled code, no pools."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlowStart:
    """How much of its share a newcomer gets, whatever the policy.

    A pick that falls on a newcomer is kept with the probability that its age gives, else it is made
    again among those that are warm.

    Source: Envoy's slow start. Below a floor of a tenth newcomers starve (envoy#29259).

    Attributes:
        window: Seconds until it gets its whole share.
        floor: Share that it starts with, above 0 to 1.
    """

    window: float = 10.0
    floor: float = 0.1

    def __post_init__(self) -> None:
        if not self.window > 0.0:
            raise ValueError(f"window must be a positive number of seconds, not {self.window!r}")
        if not 0.0 < self.floor <= 1.0:
            raise ValueError(f"floor must be above 0 and at most 1, not {self.floor!r}")

    def share(self, age: float) -> float:
        """Of its whole share, after ``age`` seconds: linear from the floor to 1."""
        return min(1.0, max(self.floor, age / self.window))
