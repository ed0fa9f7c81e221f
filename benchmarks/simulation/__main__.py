"""Simulates the shipped policies at sizes that no machine here has.

    make simulate                                    # all of it, a quarter of an hour on two cores
    python -m benchmarks.simulation --quick          # a small version, half a minute
    python -m benchmarks.simulation --only callers   # one experiment (may be repeated)

Writes report.json and plots to build/simulation/. Every figure is a median over seeds with minimum
and maximum; p99 ÷ bound compares with somebody who sees every queue and joins the shortest.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.simulation.experiments import EXPERIMENTS
from benchmarks.simulation.plots import draw
from benchmarks.simulation.runs import Row
from benchmarks.simulation.size import QUICK, Size


def tables(rows: Sequence[Row], console: Console) -> None:
    """Prints a table for each experiment and metric: contenders down, x across."""
    for experiment in dict.fromkeys(each.experiment for each in rows):
        ours = [each for each in rows if each.experiment == experiment]
        for metric in dict.fromkeys(each.metric for each in ours):
            chosen = [each for each in ours if each.metric == metric]
            across = sorted({each.x for each in chosen})
            table = Table(title=f"{experiment}: {metric}", title_justify="left")
            table.add_column("")
            for x in across:
                table.add_column(f"{x:g}", justify="right")
            for name in dict.fromkeys(each.contender for each in chosen):
                by_x = {each.x: each for each in chosen if each.contender == name}
                cells = [
                    f"{by_x[x].median:.2f} ({by_x[x].min:.2f}–{by_x[x].max:.2f})"
                    if x in by_x
                    else ""
                    for x in across
                ]
                table.add_row(name, *cells)
            console.print(table)


def simulate(only: Sequence[str], size: Size, out: Path, console: Console) -> list[Row]:
    """Runs experiments and writes what they found."""
    out.mkdir(parents=True, exist_ok=True)
    report = out / "report.json"
    rows: list[Row] = []
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        for name in only:
            task = progress.add_task(name, total=None)
            runs = 0

            def tick(name: str = name, task: object = task) -> None:
                nonlocal runs
                runs += 1
                progress.update(task, description=f"{name}: {runs} runs")  # type: ignore[arg-type]

            rows += EXPERIMENTS[name](size, tick)
            # After each: what is there can be looked at while the rest runs.
            text = json.dumps([each.document() for each in rows], indent=2, ensure_ascii=False)
            report.write_text(text + "\n", encoding="utf-8")
    for path in (report, *draw(rows, out)):
        console.print(str(path))
    return rows


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, help="one experiment")
    parser.add_argument("--quick", action="store_true", help="few calls, few seeds")
    parser.add_argument("--out", type=Path, default=Path("build/simulation"))
    options = parser.parse_args()
    console = Console()
    size = QUICK if options.quick else Size()
    try:
        rows = simulate(options.only or list(EXPERIMENTS), size, options.out, console)
    except KeyboardInterrupt:
        console.print("stopped; report.json holds the experiments that were finished")
        return 130
    tables(rows, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
