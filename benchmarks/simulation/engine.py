"""A virtual clock and the events that move it.

Not simpy: a process there is a generator that is resumed for each event, which takes five times as
long as a call, and a run here has half a million of them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class Engine:
    """Runs events in the order of their times; those of one time in the order they were set.

    Attributes:
        now: The virtual time, seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def clock(self) -> float:
        """The virtual time, for balancers and budgets."""
        return self.now

    def after(self, delay: float, event: Callable[..., Any], *arguments: Any) -> None:
        """Sets an event in ``delay`` seconds."""
        heapq.heappush(self._events, (self.now + delay, next(self._order), event, arguments))

    def run(self, until: float) -> None:
        """Runs all events up to a time, and stands there."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, event, arguments = heapq.heappop(events)
            event(*arguments)
        self.now = until
