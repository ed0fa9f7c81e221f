"""Runs on all cores, each with several seeds, summed up as median, minimum and maximum."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace

from benchmarks.simulation.habits import EVERYBODY
from benchmarks.simulation.world import Setting, World


@dataclass(frozen=True, slots=True)
class Task:
    """One setting for one contender; run once for each seed.

    Attributes:
        experiment: Whose it is.
        contender: A key of `EVERYBODY`.
        setting: The world.
        x: Where it stands in the experiment: callers, utilisation, size.
    """

    experiment: str
    contender: str
    setting: Setting
    x: float


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of a report.

    Attributes:
        experiment: Whose.
        contender: Who.
        x: Where: callers, utilisation, size.
        metric: What.
        median: Over the seeds.
        min: The smallest.
        max: The largest.
        seeds: How many.
    """

    experiment: str
    contender: str
    x: float
    metric: str
    median: float
    min: float
    max: float
    seeds: int

    def document(self) -> dict[str, object]:
        """For the JSON."""
        return asdict(self)


Measured = dict[str, float]
Measure = Callable[[Task], Measured]
Tick = Callable[[], object]


def plain(task: Task) -> Measured:
    """A run in which nothing happens but calls."""
    contender = EVERYBODY[task.contender]
    world = World(replace(task.setting, limit=contender.limit), contender.habits, contender.caller)
    seen = world.run()
    return {
        "p99": world.p99(),
        "refusals per call": seen.refused / task.setting.calls,
        "failed calls": float(seen.failed),
    }


def spread(
    measure: Measure, tasks: Iterable[Task], seeds: Sequence[int], tick: Tick
) -> list[tuple[Task, list[Measured]]]:
    """Runs all tasks with all seeds, on as many cores as there are.

    Args:
        measure: Runs one; a function of a module, for it goes to other processes.
        tasks: What to run.
        seeds: With each of these.
        tick: Called after each run.
    """
    given = list(tasks)
    jobs = [
        replace(task, setting=replace(task.setting, seed=seed)) for task in given for seed in seeds
    ]
    found: list[Measured] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for measured in pool.map(measure, jobs):
            found.append(measured)
            tick()
    size = len(seeds)
    return [(task, found[at * size : (at + 1) * size]) for at, task in enumerate(given)]


def row(task: Task, metric: str, values: Sequence[float]) -> Row:
    """Sums a metric up."""
    return Row(
        task.experiment,
        task.contender,
        task.x,
        metric,
        statistics.median(values),
        min(values),
        max(values),
        len(values),
    )
