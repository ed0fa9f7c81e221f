"""Functions as jobs: each is called in a warm worker, with its parameters as strings."""

from __future__ import annotations

import hashlib
import time


def noop() -> None:
    """Does nothing: what is left is the gateway's own cost."""


def wait(seconds: str) -> dict[str, float]:
    """Waits, as a job does that others work for: the sleep is all that it is there for."""
    time.sleep(float(seconds))
    return {"seconds": float(seconds)}


def spin(seconds: str) -> dict[str, int]:
    """Keeps a core busy for so many seconds of CPU time."""
    turns, until = 0, time.process_time() + float(seconds)
    while time.process_time() < until:
        turns += 1
    return {"turns": turns}


def digest(seed: str, rounds: str) -> dict[str, str | int]:
    """A result that depends on the seed alone, so that a second run can be compared with it."""
    value = seed.encode()
    for _ in range(int(rounds)):
        value = hashlib.sha256(value).digest()
    return {"seed": int(seed), "rounds": int(rounds), "sha256": value.hex()}
