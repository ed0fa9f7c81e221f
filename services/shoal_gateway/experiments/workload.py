"""The jobs of an experiment: what is submitted, when, and what must come of it. Seeded."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shoal_gateway.demo import second_run
from shoal_gateway.demo.second_run import Case

APPLICATIONS = {"local": "climate@2.0", "local-legacy": "climate@1.0"}
OBSERVATIONS = "observations.csv"


@dataclass(frozen=True, slots=True)
class Task:
    """A job to submit.

    Attributes:
        key: Its idempotency key.
        application: What to run.
        parameters: With what.
        inputs: Names of input files.
    """

    key: str
    application: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()


def climate(jobs: int, seed: int, label: str) -> list[Task]:
    """Forecasts, each with a month and a seed of its own; a fifth needs the old library."""
    tasks = []
    for number in range(jobs):
        flavor = "local-legacy" if number % 5 == 4 else "local"
        tasks.append(
            Task(
                key=f"{label}-{seed}-{number}",
                application=APPLICATIONS[flavor],
                parameters={"month": str(number % 12 + 1), "seed": str(seed * 100_000 + number)},
                inputs=(OBSERVATIONS,),
            )
        )
    return tasks


def naps(jobs: int, seed: int, label: str, *, seconds: tuple[float, float]) -> list[Task]:
    """Jobs that wait, each for a time of its own between the two."""
    rng = random.Random(seed)  # noqa: S311 - replayable, not secret
    return [
        Task(
            key=f"{label}-{seed}-{number}",
            application="nap",
            parameters={"seconds": f"{rng.uniform(*seconds):.3f}"},
        )
        for number in range(jobs)
    ]


def expected(
    tasks: Sequence[Task], *, project: Path, observations: Path
) -> Iterator[tuple[str, dict[str, str]]]:
    """By key, the checksums that a run outside the gateway has.

    Raises:
        SecondRunError: the second run failed.
    """
    flavors = {application: flavor for flavor, application in APPLICATIONS.items()}
    cases = {
        task.key: Case(
            flavors[task.application], int(task.parameters["month"]), int(task.parameters["seed"])
        )
        for task in tasks
        if task.application in flavors
    }
    if cases:
        yield from second_run.checksums(project, observations, cases).items()
    for task in tasks:
        if task.application == "nap":
            # What the application promises to write, spelled out: to nap again proves no more.
            text = f'{{"seconds": {float(task.parameters["seconds"])}}}\n'
            yield task.key, {"nap.json": hashlib.sha256(text.encode()).hexdigest()}


def arrivals(jobs: int, seconds: float, rng: random.Random) -> list[float]:
    """When each job is submitted: a Poisson process's ``jobs`` arrivals within ``seconds``.

    Given their number, the arrivals of a Poisson process are uniform (Ross, Stochastic Processes,
    2nd edition, theorem 2.3.1), so that the rate is exact and the times are not.
    """
    return sorted(rng.uniform(0.0, seconds) for _ in range(jobs))
