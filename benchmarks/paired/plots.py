"""Pictures of a run: all ratios with their targets, and calls while a server dies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.paired.callers import CORE, OURS
from benchmarks.paired.load import Ended, Run
from benchmarks.paired.rows import Row

COLOURS = {OURS: "tab:blue", CORE: "tab:orange"}
MISSED = "tab:red"
MET = "tab:green"
PLAIN = "0.4"
# Width of a bin on the time axis, seconds.
BIN = 0.05


def draw(rows: Sequence[Row], runs: dict[tuple[str, str], Run], folder: Path) -> list[Path]:
    """Draws what the run gives; the pictures' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    found = [row for row in rows if row.is_ratio]
    if found:
        drawn.append(ratios(found, folder / "ratios.png"))
    for case, each in groupby(sorted(runs), key=lambda key: key[0]):
        name = case.split(",")[0].replace(" ", "-").replace("×", "x").lower()
        of_case = {caller: runs[case, caller] for _, caller in each}
        drawn.append(timeline(case, of_case, folder / f"{name}.png"))
    return drawn


def ratios(rows: Sequence[Row], path: Path) -> Path:
    """Median, spread and target of each ratio, on one logarithmic axis."""
    figure, axes = plt.subplots(figsize=(8.5, 0.8 + 0.34 * len(rows)))
    for place, row in enumerate(reversed(rows)):
        colour = {True: MET, False: MISSED, None: PLAIN}[row.met]
        axes.plot([row.min, row.max], [place, place], color=colour, linewidth=2)
        axes.plot(row.median, place, "o", color=colour, markersize=6)
        if row.target is not None:
            mark = ">" if row.target.at_least else "<"
            axes.plot(row.target.limit, place, mark, color="black", markersize=6, fillstyle="none")
    labels = [
        f"{row.case}: {row.metric.removesuffix(' ÷ peer' + chr(39) + 's')} ÷ {row.peer}"
        for row in rows
    ]
    axes.set_yticks(range(len(rows)), list(reversed(labels)), fontsize=8)
    axes.axvline(1.0, color="0.8", linewidth=1, zorder=0)
    axes.set_xscale("log")
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5]
    low, high = min(row.min for row in rows), max(row.max for row in rows)
    shown = [tick for tick in ticks if low / 1.3 <= tick <= high * 1.3]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.set_xlabel("median, min, max; ◁ ▷: allowed side of the target", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def timeline(case: str, runs: dict[str, Run], path: Path) -> Path:
    """Calls a second and the slowest call, over the time of the last round."""
    figure, (rate, slowest) = plt.subplots(2, 1, figsize=(7, 4.5), sharex=True)
    for caller, run in runs.items():
        times, counts, worst, failed = [], [], [], []
        for number, calls in enumerate(_bins(run)):
            times.append(number * BIN)
            counts.append(sum(call.code is None for call in calls) / BIN)
            # A gap where no call ended.
            worst.append(1e3 * max((call.latency for call in calls), default=math.nan))
            failed.append(sum(call.code is not None for call in calls))
        rate.step(times, counts, where="post", color=COLOURS[caller], label=caller)
        slowest.step(times, worst, where="post", color=COLOURS[caller])
        marked = [(at, top) for at, top, lost in zip(times, worst, failed, strict=True) if lost]
        if marked:
            slowest.plot(
                [at + BIN / 2 for at, _ in marked],
                [top for _, top in marked],
                "x",
                color=COLOURS[caller],
                label=f"{caller}: {sum(failed)} failed, idempotent or not",
            )
    rate.set_ylim(bottom=0)
    rate.set_ylabel("answered calls a second")
    rate.legend(frameon=False, fontsize=8)
    rate.set_title(f"{case} (last round)", fontsize=10)
    slowest.set_yscale("log")
    slowest.set_ylabel("slowest call, ms")
    slowest.set_xlabel("seconds")
    if slowest.get_legend_handles_labels()[0]:
        slowest.legend(frameon=False, fontsize=8)
    for axes in (rate, slowest):
        axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def _bins(run: Run) -> list[list[Ended]]:
    """The calls by when they ended; the last bin, which is not a whole one, left out."""
    bins: list[list[Ended]] = [[] for _ in range(int(run.seconds / BIN) + 1)]
    for call in run.calls:
        bins[int(call.at / BIN)].append(call)
    return bins[:-1]


def _save(figure: Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
