"""How long `import shoal` takes beside `import grpc` and `import kazoo.client`, which it stands on.

Each import happens in a process of its own, whose start is not counted, with the files in the
system's cache. A round gives every case its turns, in an order that changes; a round's figure of a
case is the least of its turns, for whatever else the machine does only adds. Figures are ratios to
the two packages alone.

For example:
  python -m benchmarks.importing
  python -m benchmarks.importing --rounds 11 --turns 7 --out /tmp/importing
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.paired.report import markdown, table
from benchmarks.paired.rows import Row, at_most, ratios

PEER = "grpc and kazoo.client"
TARGET = 1.15

# What is imported. A name of shoal's is loaded when it is asked for, so what a program pays depends
# on what it uses.
CASES: Mapping[str, str] = {
    PEER: "import grpc, kazoo.client",
    "import shoal": "import shoal",
    "import shoal beside the two": "import grpc, kazoo.client, shoal",
    "a caller": "import shoal; shoal.Directory; shoal.Channel",
    "a server": "import shoal; shoal.Directory; shoal.Server",
    "an asyncio caller": "import shoal.aio; shoal.aio.Directory; shoal.aio.Channel",
}
TARGETS = {"import shoal", "import shoal beside the two"}
PROGRAM = """
import time
began = time.perf_counter()
{}
print(time.perf_counter() - began)
"""


def turn(code: str) -> float:
    """Seconds that an import takes in a process of its own."""
    command = [sys.executable, "-c", PROGRAM.format(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120.0)
    return float(done.stdout)


def measured(rounds: int, turns: int) -> dict[str, list[float]]:
    """The least of each round, by case."""
    found: dict[str, list[float]] = {name: [] for name in CASES}
    order = list(CASES)
    for code in CASES.values():
        turn(code)  # compiled, and in the cache
    for number in range(rounds):
        at = number % len(order)
        took: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(turns):
            for name in order[at:] + order[:at]:
                took[name].append(turn(CASES[name]))
        for name, values in took.items():
            found[name].append(min(values))
    return found


def rows_of(found: Mapping[str, Sequence[float]]) -> list[Row]:
    """Each case beside the two packages alone."""
    rows = [Row(PEER, PEER, "ms", tuple(value * 1e3 for value in found[PEER]))]
    for name, values in found.items():
        if name != PEER:
            target = at_most(TARGET) if name in TARGETS else None
            shares = ratios(values, found[PEER])
            rows.append(Row(name, PEER, "time ÷ peer's", shares, target=target))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.importing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7, help="at least 5 (default: 7)")
    parser.add_argument("--turns", type=int, default=5, help="of each case in a round (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one short round: no claim")
    parser.add_argument("--out", type=Path, default=Path("build/bench-import"))
    options = parser.parse_args(arguments)
    if options.rounds < 5:
        parser.error("--rounds must be at least 5: fewer say nothing on a shared machine")
    rounds, turns = (1, 1) if options.quick else (options.rounds, options.turns)
    rows = rows_of(measured(rounds, turns))
    report = {
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "load": os.getloadavg(),
        },
        "rounds": rounds,
        "turns": turns,
        "rows": [{**row.record(), "values": row.values} for row in rows],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "import.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (options.out / "import.md").write_text(markdown(rows), encoding="utf-8")
    Console(width=150).print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
