"""Waiting for what has no event to await."""

import time


def eventually(condition, timeout=30.0, what="the condition"):
    """Asks every 10 ms until ``condition()`` is true and returns its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {timeout:g} s")
        time.sleep(0.01)
    return value
