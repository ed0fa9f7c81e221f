"""The habits and limits that are compared, by the names that they have in tables and plots."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.simulation.callers import Caller, Habits
from benchmarks.simulation.probing import AsksAlong, AsksFirst, AsksFive
from benchmarks.simulation.references import IdealP2C, ShortestQueue
from benchmarks.simulation.rivals import BelievedForever, Memory, Prequal, Probed
from shoal_balancer import (
    LeastLoaded,
    LeastReported,
    PeakEwma,
    Random,
    RoundRobin,
    WeightedRandom,
    WeightedRoundRobin,
)
from shoal_balancer.limit import FixedLimit, Limit


@dataclass(frozen=True, slots=True)
class Contender:
    """Callers' habits, and the limit of replicas that goes with them."""

    habits: Habits
    limit: Limit | None = None
    caller: type[Caller] = Caller


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
    "least reported, limit": Contender(Habits(LeastReported), LIMIT),
}

# What was tried on the way, and how each part does alone.
RIVALS: dict[str, Contender] = {
    "last word, P2C": Contender(Habits(BelievedForever)),
    "last word fading, 1 random and 1 recent": Contender(Habits(lambda: LeastReported(among=2))),
    "least reported among all": Contender(Habits(lambda: LeastReported(among=100))),
    "memory: 2 fresh, 1 kept": Contender(Habits(Memory)),
    "memory: 2 fresh, 8 kept": Contender(Habits(lambda: Memory(kept=8))),
    "ask 2 first": Contender(Habits(Probed), caller=AsksFirst),
    "ask 5 first": Contender(Habits(Probed), caller=AsksFive),
    "Prequal": Contender(Habits(Prequal), caller=AsksAlong),
    "random, limit 2": Contender(Habits(Random), FixedLimit(2)),
    "random, limit": Contender(Habits(Random), LIMIT),
    "random, limit 4": Contender(Habits(Random), FixedLimit(4)),
    "least reported, limit 2": Contender(Habits(LeastReported), FixedLimit(2)),
    "least reported, limit 4": Contender(Habits(LeastReported), FixedLimit(4)),
}
EVERYBODY = CONTENDERS | RIVALS
