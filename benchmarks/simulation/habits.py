"""The habits and limits that are compared, by the names that they have in tables and plots."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.simulation.callers import Habits
from benchmarks.simulation.references import IdealP2C, ShortestQueue
from shoal_balancer import (
    LeastLoaded,
    LeastReported,
    PeakEwma,
    Random,
    RoundRobin,
    WeightedRandom,
    WeightedRoundRobin,
)
from shoal_balancer.limit import AdaptiveLimit, FixedLimit, Limit


@dataclass(frozen=True, slots=True)
class Contender:
    """Callers' habits, and the limit of replicas that goes with them."""

    habits: Habits
    limit: Limit | None = None


BOUND = "shortest queue (bound)"
IDEAL = "ideal P2C"
RANDOM = "random"
# Three calls at once for a replica of one slot: one runs and two wait.
LIMIT = FixedLimit(3)

CONTENDERS: dict[str, Contender] = {
    BOUND: Contender(Habits(ShortestQueue)),
    IDEAL: Contender(Habits(IdealP2C)),
    RANDOM: Contender(Habits(Random)),
    "round robin": Contender(Habits(RoundRobin)),
    "weighted random, reports": Contender(Habits(WeightedRandom)),
    "weighted round robin, reports": Contender(Habits(WeightedRoundRobin)),
    "least loaded": Contender(Habits(LeastLoaded)),
    "peak EWMA": Contender(Habits(PeakEwma)),
    "least reported": Contender(Habits(LeastReported)),
    "peak EWMA, limit": Contender(Habits(PeakEwma), LIMIT),
    "peak EWMA, adaptive limit": Contender(
        Habits(PeakEwma), AdaptiveLimit(initial=3, least=1, most=50)
    ),
    "least reported, limit": Contender(Habits(LeastReported), LIMIT),
}
