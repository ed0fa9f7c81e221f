"""Celery with Redis beside Shoal: what a run of the capacity experiment says of both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from shoal_gateway.experiments.peers import celery_side, losses, shoal_side, tasks
from shoal_gateway.experiments.peers.celery_side import CelerySide
from shoal_gateway.experiments.peers.shoal_side import ShoalSide
from shoal_gateway.experiments.peers.sides import WORKERS, Round, Side

# Rounds of each side, jobs of a round, jobs that something is killed under.
ROUNDS, JOBS, KILLED_UNDER = 5, 2000, 200
SMALL_ROUNDS, SMALL_JOBS, SMALL_KILLED_UNDER = 2, 60, 24
# What a small run kills: the peer needs its visibility timeout for the others.
SMALL_KILLED = ("worker",)

DEFINITIONS = {
    "jobs per second": "of a whole round: from the first submit until the client has seen the last "
    f"job's result. Functions that do nothing, {WORKERS} worker processes on either side; Shoal's "
    "are submitted together and kept in SQLite, Celery's are sent through one producer, with late "
    "acknowledgement, Redis appending to its file and forcing it to the disk every second",
    "ratio": "Shoal's rate by Celery's of the same round; rounds alternate",
    "lost": f"acknowledged, and without a result {losses.PATIENCE:g} s after the kill (Shoal), or "
    f"{losses.SWEEPS:g} s (Celery, whose workers look for what others left every hundred seconds)",
    "visibility timeout": f"seconds after which Redis' transport (kombu) gives a task to another "
    f"worker when the one that has taken it is gone: {tasks.VISIBILITY:g} s here, an hour unless "
    "it is set. Shoal's leases run out after seconds, and a manager that comes back ends or "
    "adopts what it had",
    "everysec": "what Redis has acknowledged within the last second outlives its process, for "
    "the kernel has it, and not the machine; a send under way when it dies is refused",
}

Tell = Callable[[str], None]


def compare(place: Path, *, small: bool, tell: Tell) -> dict[str, Any]:
    """Runs both, in turns, and kills processes of both.

    Args:
        place: Where both keep their data.
        small: Few jobs, and one kill: shows that it works.
        tell: Is told what was found, line by line.

    Returns:
        ``rates`` (jobs a second of each round, with median, least and most), ``ratio``,
        ``losses``, ``definitions`` and ``versions``.

    Raises:
        celery_side.MissingError: Redis is not installed.
    """
    rounds, jobs = (SMALL_ROUNDS, SMALL_JOBS) if small else (ROUNDS, JOBS)
    under, killed = (SMALL_KILLED_UNDER, SMALL_KILLED) if small else (KILLED_UNDER, losses.KILLED)
    with (
        celery_side.running(place / "celery") as celery,
        shoal_side.running(place / "shoal") as shoal,
    ):
        rates = rates_of_both(shoal, celery, rounds, jobs)
        lost = losses_of_both(shoal, celery, under, killed)
    if losses.OF_TWO in killed:
        lost.insert(len(killed) - 1, loss_of_a_host(place, under))
    ratio = summary([a / b for a, b in zip(rates["Shoal"], rates["Celery"], strict=True)])
    tell(
        f"no-op jobs a second, median of {rounds} rounds: "
        + ", ".join(f"{name} {statistics.median(its):.0f}" for name, its in rates.items())
        + f"; ratio {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"
    )
    for loss in lost:
        tell(
            f"{loss['side']}, SIGKILL to {loss['what']}: of {loss['acknowledged']} jobs "
            f"{loss['succeeded']} succeeded, {loss['failed']} failed, {loss['lost']} lost, "
            f"after {loss['seconds']:.1f} s"
        )
    return {
        "rates": {
            name: {"rounds": [round(each, 1) for each in its], **summary(its)}
            for name, its in rates.items()
        },
        "ratio": ratio,
        "jobs_of_a_round": jobs,
        "losses": lost,
        "definitions": DEFINITIONS,
        "versions": {name: metadata.version(name) for name in ("celery", "kombu", "redis")},
    }


def rates_of_both(
    shoal: ShoalSide, celery: CelerySide, rounds: int, jobs: int
) -> dict[str, list[float]]:
    """Jobs a second, both sides up the whole time and in turns, who begins changing."""
    found: dict[str, list[Round]] = {"Shoal": [], "Celery": []}
    sides: list[tuple[str, Side]] = [("Shoal", shoal), ("Celery", celery)]
    for _, side in sides:
        side.run(max(50, jobs // 10), single=False)  # warm
    for number in range(rounds):
        for name, side in sides if number % 2 else reversed(sides):
            found[name].append(side.run(jobs, single=False))
    return {name: [each.rate for each in its] for name, its in found.items()}


def losses_of_both(
    shoal: ShoalSide, celery: CelerySide, jobs: int, kinds: Sequence[str]
) -> list[dict[str, Any]]:
    """What SIGKILL costs each side; of Shoal without the kind that takes two hosts."""
    found = [losses.of_shoal(shoal, each, jobs) for each in kinds if each != losses.OF_TWO]
    found += [losses.of_celery(celery, each, jobs) for each in kinds]
    return [each.record() for each in found]


def loss_of_a_host(place: Path, jobs: int) -> dict[str, Any]:
    """What it costs Shoal to lose one of two hosts."""
    with shoal_side.running(place / "two-hosts", hosts=2) as shoal:
        shoal.run(50, single=False)
        return losses.of_shoal(shoal, losses.OF_TWO, jobs).record()


def summary(figures: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": round(statistics.median(figures), 3),
        "least": round(min(figures), 3),
        "most": round(max(figures), 3),
    }
