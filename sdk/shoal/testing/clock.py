"""A clock that moves when it is told to."""

from __future__ import annotations


class FakeClock:
    """Seconds that stand still until `advance`; pass it wherever a ``clock`` is taken.

    Args:
        start: What it shows first.

    >>> clock = FakeClock(100.0)
    >>> clock.advance(2.5)
    102.5
    >>> clock()
    102.5
    """

    def __init__(self, start: float = 0.0) -> None:
        self.seconds = start

    def __call__(self) -> float:
        """The time."""
        return self.seconds

    def advance(self, seconds: float) -> float:
        """Moves forward and returns the new time."""
        if seconds < 0.0:
            raise ValueError(f"a monotonic clock does not go back: {seconds!r}")
        self.seconds += seconds
        return self.seconds
