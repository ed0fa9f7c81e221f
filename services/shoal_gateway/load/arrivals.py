"""When jobs arrive in an open loop: by a clock that does not look at what became of the last. Pure.

Users who wait for an answer before they ask again ask a slow system less, and so never see how
slow it is to those who don't wait for each other (coordinated omission).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

KINDS = ("poisson", "constant")


def arrivals(rate: float, count: int, *, kind: str, seed: int) -> list[float]:
    """Moments of ``count`` arrivals, in seconds after the start, ascending.

    Args:
        rate: Arrivals per second; 0: all at once.
        count: How many.
        kind: "poisson" (independent of each other, at random) or "constant" (evenly spaced).
        seed: The same gives the same moments.

    Raises:
        ValueError: the rate is negative, or the kind is not known.
    """
    if rate < 0.0:
        raise ValueError(f"a rate of {rate:g} arrivals per second is none; 0 means all at once")
    if kind not in KINDS:
        raise ValueError(f"arrivals can be {' or '.join(KINDS)}, not {kind!r}")
    if rate == 0.0:
        return [0.0] * count
    if kind == "constant":
        return [number / rate for number in range(count)]
    rng = random.Random(seed)  # noqa: S311 - replayable, not secret
    moments, at = [], 0.0
    for _ in range(count):
        moments.append(at)
        at += rng.expovariate(rate)
    return moments


def share(moments: Sequence[float], index: int, of: int) -> list[tuple[int, float]]:
    """What one of ``of`` processes sends: every ``of``-th arrival, with its number among all."""
    return list(enumerate(moments))[index::of]
