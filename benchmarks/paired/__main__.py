"""Shoal against what one would use instead: paired, in alternating rounds, on this machine.

Every caller gets its turn in every round, over the same servers; a figure is the median of the
rounds, with the lowest and the highest. Shoal runs with its shipped defaults: peak EWMA, ejection,
retry, budget. Servers, gateways and ZooKeeper are processes of this machine and share its cores
with the callers. Written are report.json, report.md, rounds.json and pictures.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.status import Status

from benchmarks.paired import plots, report
from benchmarks.paired.bench import Bench
from benchmarks.paired.cases import CASES
from benchmarks.paired.rows import Row

EXAMPLES = """examples:
  python -m benchmarks.paired                           everything, 7 rounds
  python -m benchmarks.paired --only latency --rounds 11
  python -m benchmarks.paired --only kill --only stop   two cases
  python -m benchmarks.paired --quick                   whether it works; no figure means anything
"""


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paired",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7, help="at least 5 (default: 7)")
    parser.add_argument(
        "--only", action="append", choices=list(CASES), metavar="CASE", help=", ".join(CASES)
    )
    parser.add_argument("--quick", action="store_true", help="two short rounds: no claim")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="build/bench")
    options = parser.parse_args(arguments)
    if options.rounds < 5:
        parser.error("--rounds must be at least 5: fewer say nothing on a shared machine")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases, and writes and prints what they give; the exit code."""
    options = options_of(sys.argv[1:] if arguments is None else arguments)
    # As with Ctrl-C: what was started is ended on the way out.
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(width=max(Console().width, 150))
    rows: list[Row] = []
    broken = False
    with console.status("starting") as status:
        bench = Bench(
            rounds=2 if options.quick else options.rounds,
            quick=options.quick,
            told=_teller(status),
        )
        try:
            for name in options.only or CASES:
                status.update(f"{name}: starting its servers")
                try:
                    rows += CASES[name](bench)
                except Exception as error:  # noqa: BLE001 - the other cases' figures are kept
                    console.print_exception()
                    bench.remark(f"{name} broke off, so its rows are missing: {error}")
                    broken = True
                else:
                    console.print(f"{name}: done")
        except KeyboardInterrupt:
            console.print("interrupted; everything that was started has ended, nothing is written")
            return 130
    report.write(rows, bench, options.out)
    pictures = plots.draw(rows, bench.runs, options.out)
    console.print(report.table(rows))
    for remark in bench.remarks:
        console.print(f"[yellow]{remark}")
    written = ["report.json", "report.md", "rounds.json", *(each.name for each in pictures)]
    console.print(f"{options.out}: {', '.join(written)}")
    missed = [row for row in rows if row.met is False]
    if missed and not options.quick:
        console.print(f"[bold]{len(missed)} of {_targets(rows)} targets missed")
    return int(broken)


def _targets(rows: list[Row]) -> int:
    return sum(row.target is not None for row in rows)


def _teller(status: Status) -> Callable[[str, int, int], object]:
    def told(case: str, number: int, count: int) -> None:
        status.update(f"{case}: round {number + 1} of {count}")

    return told


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
