"""Shoal's no-op jobs beside Celery's with Redis: rate, cost beside stored jobs, and what is lost.

Writes jobs.json and jobs.md. Both sides run the whole time, each with two worker processes, and
have their turns in an order that changes. A rate is that of a whole round: from the first submit
until the client has seen the last job's terminal record.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.jobs import stored
from benchmarks.paired.report import markdown, table
from benchmarks.paired.rows import Row, at_least, at_most, ratios
from shoal_gateway.experiments.peers import celery_side, comparison, losses, shoal_side
from shoal_gateway.experiments.peers.sides import Round, Side

PARTS = ("rate", "stored", "losses")
SIZES = (100, 1_000, 10_000, 100_000)


def rate(place: Path, rounds: int, jobs: int) -> tuple[list[Row], dict[str, Any]]:
    """Jobs per second beside Celery's."""
    found: dict[str, list[Round]] = {"together": [], "one by one": [], "Celery": []}
    with (
        celery_side.running(place / "celery") as celery,
        shoal_side.running(place / "shoal") as shoal,
    ):
        turns: list[tuple[str, Side, bool]] = [
            ("Celery", celery, False),
            ("together", shoal, False),
            ("one by one", shoal, True),
        ]
        for _, side, single in turns:
            side.run(max(50, jobs // 10), single=single)  # warm
        for number in range(rounds):
            for name, side, single in turns[number % 3 :] + turns[: number % 3]:
                found[name].append(side.run(jobs, single=single))
    theirs = shoal_side.rates(found["Celery"])
    rows = []
    for name in ("together", "one by one"):
        ours = shoal_side.rates(found[name])
        case = f"no-op jobs, submitted {name}"
        target = at_least(1.0) if name == "together" else None
        rows += [
            Row(case, "Celery + Redis", "jobs/s ÷ peer's", ratios(ours, theirs), target),
            Row(case, "Shoal", "jobs/s", tuple(ours)),
            Row(case, "Shoal", "CPU of all processes, ms a job", _cpu(found[name])),
        ]
    rows += [
        Row("no-op tasks", "Celery + Redis", "jobs/s", tuple(theirs)),
        Row(
            "no-op tasks", "Celery + Redis", "CPU of all processes, ms a job", _cpu(found["Celery"])
        ),
    ]
    spent = {
        name: {process: [each.cpu[process] for each in many] for process in many[0].cpu}
        for name, many in found.items()
    }
    return rows, {"cpu_ms_per_job": spent}


def cost(place: Path, rounds: int, jobs: int, sizes: Sequence[int]) -> list[Row]:
    """Time and CPU of a job beside many that are stored."""
    found: dict[int, list[Round]] = {size: [] for size in sizes}
    for size in sizes:
        stored.fill(place / f"stored-{size}", size)
    for number in range(rounds):
        for size in list(sizes)[number % len(sizes) :] + list(sizes)[: number % len(sizes)]:
            with shoal_side.running(place / f"stored-{size}") as shoal:
                shoal.run(max(50, jobs // 10), single=False)  # warm
                found[size].append(shoal.run(jobs, single=False))
    least = [_registry(each) for each in found[sizes[0]]]
    rows = []
    for size in sizes:
        case = f"{size} stored jobs"
        spent = [_registry(each) for each in found[size]]
        rows += [
            Row(case, "Shoal", "ms a job, end to end", tuple(_ms(each) for each in found[size])),
            Row(case, "Shoal", "registry's CPU, ms a job", tuple(spent)),
        ]
        if size != sizes[0]:
            metric = f"registry's CPU a job ÷ that with {sizes[0]}"
            rows.append(Row(case, "Shoal", metric, ratios(spent, least), at_most(1.25)))
    return rows


def lost(place: Path, jobs: int) -> list[dict[str, Any]]:
    """What SIGKILL costs each side."""
    with (
        celery_side.running(place / "losses-celery") as celery,
        shoal_side.running(place / "losses-shoal") as shoal,
    ):
        for side in (celery, shoal):
            side.run(50, single=False)
        found = comparison.losses_of_both(shoal, celery, jobs, losses.KILLED)
    return [*found, comparison.loss_of_a_host(place, jobs)]


def _cpu(rounds: Sequence[Round]) -> tuple[float, ...]:
    return tuple(sum(each.cpu.values()) for each in rounds)


def _registry(each: Round) -> float:
    return each.cpu["registry-1"]


def _ms(each: Round) -> float:
    return 1000.0 / each.rate


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2000, help="in each round")
    parser.add_argument(
        "--stored", type=int, nargs="+", default=list(SIZES), help="sizes of the store"
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench-jobs"))
    options = parser.parse_args(arguments)
    parts = options.only or PARTS
    rows: list[Row] = []
    report: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "load": os.getloadavg(),
        },
        "jobs": options.jobs,
        "rounds": options.rounds,
    }
    try:
        with tempfile.TemporaryDirectory(prefix="shoal-jobs-") as directory:
            place = Path(directory)
            if "rate" in parts:
                found, more = rate(place, options.rounds, options.jobs)
                rows += found
                report |= more
            if "stored" in parts:
                rows += cost(place, options.rounds, options.jobs, options.stored)
            if "losses" in parts:
                report["losses"] = lost(place, max(40, options.jobs // 10))
    except celery_side.MissingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    report["rows"] = [{**row.record(), "values": row.values} for row in rows]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "jobs.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (options.out / "jobs.md").write_text(markdown(rows), encoding="utf-8")
    console = Console(width=160)
    console.print(table(rows))
    for loss in report.get("losses", ()):
        console.print(loss)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
