"""The figures of a run as JSON, as a table for the terminal and as one for the documentation."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import grpc
from rich.table import Table

from benchmarks.paired.bench import Bench
from benchmarks.paired.rows import Row


def figure(value: float) -> str:
    """A number with as many digits as it deserves.

    >>> figure(0.9731), figure(12.34), figure(512.7), figure(0.0)
    ('0.973', '12.3', '513', '0')
    """
    if value == 0.0:
        return "0"
    if abs(value) >= 100.0:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10.0 else f"{value:.3g}"


def verdict(row: Row) -> str:
    """Met, missed, or nothing where there is no target."""
    return {True: "met", False: "missed", None: ""}[row.met]


def cells(row: Row) -> list[str]:
    """A row of either table."""
    return [
        row.case,
        row.peer,
        row.metric,
        figure(row.median),
        figure(row.min),
        figure(row.max),
        str(len(row.values)),
        str(row.target or ""),
        verdict(row),
    ]


HEADER = ("case", "peer", "metric", "median", "min", "max", "rounds", "target", "")


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    drawn = Table(title="Shoal, paired with its peers")
    for number, name in enumerate(HEADER):
        drawn.add_column(name, justify="right" if 3 <= number <= 6 else "left")
    before = None
    for row in rows:
        if before is not None and row.case != before:
            drawn.add_section()
        first, *rest = cells(row)
        drawn.add_row(
            "" if row.case == before else first,
            *rest,
            style={True: "green", False: "bold red", None: ""}[row.met],
        )
        before = row.case
    return drawn


def markdown(rows: Sequence[Row]) -> str:
    """For the documentation."""
    lines = [
        "| " + " | ".join(HEADER) + " |",
        "| " + " | ".join("---:" if 3 <= n <= 6 else "---" for n in range(len(HEADER))) + " |",
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def write(rows: Sequence[Row], bench: Bench, folder: Path) -> None:
    """Writes ``report.json``, ``report.md``, and ``rounds.json`` with every round's value."""
    folder.mkdir(parents=True, exist_ok=True)
    _json(folder / "report.json", [row.record() for row in rows])
    (folder / "report.md").write_text(markdown(rows), encoding="utf-8")
    _json(
        folder / "rounds.json",
        {
            "machine": {
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "grpcio": grpc.__version__,
                "system": platform.platform(),
            },
            "quick": bench.quick,
            "remarks": bench.remarks,
            "rows": [{**row.record(), "values": row.values} for row in rows],
        },
    )


def _json(path: Path, value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
