"""Running a test on an event loop, with plain asyncio."""

from __future__ import annotations

import asyncio
import functools
import time

LIMIT = 60.0


def on_loop(test):
    """Makes an ordinary test of a coroutine function, with an end."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), LIMIT))

    return run


async def eventually(condition, within=30.0, what="the condition"):
    """Asks every 10 ms until ``condition()`` is true and returns its value."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {within:g} s")
        await asyncio.sleep(0.01)
    return value
