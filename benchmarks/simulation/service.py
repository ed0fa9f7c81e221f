"""Service times: how long a call takes where nothing waits, in means of 1."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

Draw = Callable[[random.Random], float]

# The logarithm's standard deviation: the slowest of a hundred calls takes six times the mean.
SIGMA = 1.0
# Tail index: the variance is finite, hardly.
ALPHA = 2.2


def fixed(_rng: random.Random) -> float:
    """Always the mean."""
    return 1.0


def exponential(rng: random.Random) -> float:
    """Without memory, as in the textbooks."""
    return rng.expovariate(1.0)


def lognormal(rng: random.Random) -> float:
    """Heavy-tailed as measured services are."""
    return rng.lognormvariate(-SIGMA * SIGMA / 2.0, SIGMA)


def pareto(rng: random.Random) -> float:
    """Heavier: a power law."""
    return rng.paretovariate(ALPHA) * (ALPHA - 1.0) / ALPHA


SERVICES: dict[str, Draw] = {
    "fixed": fixed,
    "exponential": exponential,
    "lognormal": lognormal,
    "pareto": pareto,
}


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least ``share`` of all don't exceed; NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
