"""Whether the work at hand is somebody's retry already, so that retries don't multiply.

A calls B, B calls C, each with three attempts: a failing C would be called nine times, and a fourth
service 27 times. So B repeats C's failures only while A calls it for the first time; from A's
second attempt on B tries once and lets A decide. Calls of C are then five at most, and grow by two
with each layer rather than threefold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

# Tells a server which attempt this is; sent from the second on.
ATTEMPT_KEY = "shoal-attempt"

_attempt: ContextVar[int] = ContextVar("shoal_attempt", default=1)


def attempt() -> int:
    """Which attempt of our caller's the handler at work serves; 1 outside of handlers."""
    return _attempt.get()


def attempt_in(metadata: Iterable[Any] | None) -> int:
    """The number of an attempt in a call's metadata; 1 when it is the first or can't be read."""
    for key, value in metadata or ():
        if key == ATTEMPT_KEY:
            with suppress(ValueError):
                return max(1, int(value))
    return 1


def passed_on(metadata: Any, number: int = 1) -> Any:
    """A call's metadata, with the number of the attempt if it is not a first one.

    Args:
        metadata: The caller's; None without any.
        number: Which attempt of this call it is. A first attempt that a handler makes for a later
            one of its own caller goes under that number.
    """
    number = max(number, _attempt.get())
    return metadata if number == 1 else (*(metadata or ()), (ATTEMPT_KEY, str(number)))


@contextmanager
def serving(number: int) -> Iterator[None]:
    """While a handler serves such an attempt; on its thread, or in its task."""
    token = _attempt.set(number)
    try:
        yield
    finally:
        # A stream that nobody reads to its end is closed wherever it is collected.
        with suppress(ValueError):
            _attempt.reset(token)
