"""What the capacity experiment offers to which fleet: series of steps. Pure.

A step offers N jobs. In a step by rate they arrive at random at that rate; in a step by N they all
come at once, so that N users wait at the same time, each for one job.
"""

from __future__ import annotations

from dataclasses import dataclass

WAIT, BURN, NOOP = "wait", "burn", "noop"

# Processor seconds that a burning job uses, and seconds that a waiting one waits.
SECONDS = {WAIT: 0.5, BURN: 0.5}
APPLICATIONS = {WAIT: "nap@1.0", BURN: "burn@1.0", NOOP: "noop@1"}
# Jobs at once of each app manager, the same in all fleets.
SLOTS = 2


@dataclass(frozen=True, slots=True)
class Step:
    """Jobs that are offered together.

    Attributes:
        kind: What they do: wait, burn or noop.
        replicas: Of each service.
        jobs: N, how many.
        rate: At which they arrive, per second; 0: all at once.
    """

    kind: str
    replicas: int
    jobs: int
    rate: float

    @property
    def name(self) -> str:
        """In files and in the history."""
        course = f"rate-{self.rate:g}" if self.rate else f"n-{self.jobs}"
        return f"{self.kind}-{self.replicas}-{course}"

    @property
    def application(self) -> str:
        """What the jobs are made of."""
        return APPLICATIONS[self.kind]

    @property
    def parameters(self) -> dict[str, str]:
        """What each is told."""
        seconds = SECONDS.get(self.kind)
        return {} if seconds is None else {"seconds": f"{seconds:g}"}


# By kind and replicas: rates per second, and jobs of each step in shares of the number asked for.
# They reach from well below to well above what two cores and so many slots can do.
RATES: dict[tuple[str, int], tuple[tuple[float, ...], float]] = {
    (WAIT, 1): ((1.5, 2.5, 3.5, 5.0), 1.0),
    (WAIT, 3): ((3.0, 5.0, 7.0, 10.0), 2.0),
    (BURN, 1): ((1.0, 2.5, 5.0), 0.6),
    (BURN, 3): ((1.0, 2.5, 5.0), 0.6),
    (NOOP, 1): ((25.0, 50.0, 100.0, 200.0), 16.0),
    (NOOP, 3): ((25.0, 50.0, 100.0, 200.0), 16.0),
}
# Bursts of waiting jobs, in the same shares.
BURSTS: dict[int, tuple[float, ...]] = {1: (0.4, 0.8, 1.2, 1.6), 3: (0.8, 1.6, 2.4, 3.2)}
FLEETS = (1, 3)


def full(jobs: int) -> list[Step]:
    """All steps, fleet by fleet.

    Args:
        jobs: N of a usual step.

    Raises:
        ValueError: so few show nothing.
    """
    if jobs < 10:
        raise ValueError(f"{jobs} jobs a step are too few to see a rate in: use 10 or more")
    steps = []
    for replicas in FLEETS:
        for (kind, of), (rates, factor) in RATES.items():
            if of == replicas:
                steps += [Step(kind, of, round(jobs * factor), rate) for rate in rates]
        steps += [Step(WAIT, replicas, round(jobs * each), 0.0) for each in BURSTS[replicas]]
    return steps


def reduced(jobs: int) -> list[Step]:
    """One rate and one burst, ``jobs`` in all, for three of each service: shows that it works.

    Raises:
        ValueError: so few can't be shared out.
    """
    if jobs < 8:
        raise ValueError(f"{jobs} jobs can't be shared between two steps: use 8 or more")
    by_rate = jobs // 2
    return [Step(WAIT, 3, by_rate, 6.0), Step(WAIT, 3, jobs - by_rate, 0.0)]
