"""How large the experiments are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.simulation.world import Setting


@dataclass(frozen=True, slots=True)
class Size:
    """How large the experiments are.

    Attributes:
        calls: In each run.
        seeds: Each run is made once with each.
        callers: Numbers of callers that are compared.
        utilisations: Loads that are compared.
        replicas: In most experiments.
        crowd: Callers and replicas of the subsetting.
        subsets: Sizes that are compared.
    """

    calls: int = 30_000
    seeds: tuple[int, ...] = (1, 2, 3)
    callers: tuple[int, ...] = (1, 10, 100, 1000)
    utilisations: tuple[float, ...] = (0.3, 0.6, 0.8, 0.9, 0.95)
    replicas: int = 100
    crowd: int = 1000
    subsets: tuple[int, ...] = (12, 20, 50, 100)

    @property
    def usual(self) -> Setting:
        """The setting that experiments begin with."""
        return Setting(replicas=self.replicas, calls=self.calls)

    @property
    def many(self) -> Setting:
        """The same for a hundred callers, or the most below."""
        return replace(self.usual, callers=max(each for each in self.callers if each <= 100))


QUICK = Size(
    calls=3_000,
    seeds=(1, 2),
    callers=(1, 50),
    utilisations=(0.5, 0.8),
    replicas=30,
    crowd=100,
    subsets=(12, 20),
)
