"""Plots of what was simulated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.simulation.runs import Row

STYLES = {
    "random": ("0.6", "--"),
    "round robin": ("0.4", ":"),
    "weighted random, reports": ("tab:olive", ":"),
    "weighted round robin, reports": ("tab:brown", ":"),
    "least loaded": ("tab:cyan", "-"),
    "peak EWMA": ("tab:blue", "-"),
    "least reported": ("tab:orange", "-"),
    "peak EWMA, limit": ("tab:green", "-"),
    "ask 2 first": ("tab:pink", "--"),
    "least reported, limit": ("tab:red", "-"),
    "ideal P2C": ("black", "-."),
}
WIDTH, HEIGHT = 8.0, 5.0


def lines(
    rows: Sequence[Row], experiment: str, metric: str, path: Path, *, xlabel: str, log: bool
) -> None:
    """A line with a band from minimum to maximum for each contender."""
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    chosen = [each for each in rows if (each.experiment, each.metric) == (experiment, metric)]
    ticks = sorted({each.x for each in chosen})
    for name, (colour, style) in STYLES.items():
        points = sorted((each for each in chosen if each.contender == name), key=lambda e: e.x)
        if not points:
            continue
        if len(points) == 1 and len(ticks) > 1:
            axes.axhline(points[0].median, color=colour, linestyle=style, label=name)
            continue
        x = [each.x for each in points]
        axes.plot(x, [each.median for each in points], color=colour, linestyle=style, marker="o",
                  markersize=4, label=name)  # fmt: skip
        axes.fill_between(
            x, [each.min for each in points], [each.max for each in points], color=colour, alpha=0.1
        )
    if log:
        axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


# Experiment, metric, x axis, whether that is logarithmic, the default.
KNOBS = (
    ("tau", "p99, mean calls", "tau, mean calls (0: least loaded)", "symlog", None),
    ("slow start", "p99 of the next 30 s, mean calls", "slow start, s", "linear", 10.0),
    ("penalty", "sick: share ÷ even share", "penalty of a failure", "log", 5.0),
    ("volume", "well but ejected, %", "least calls of a success rate", "linear", 20.0),
)


def knobs(rows: Sequence[Row], path: Path) -> None:
    """What each value of a default leads to; a dotted line at the default."""
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH, HEIGHT * 1.2), layout="constrained")
    for axes, (experiment, metric, xlabel, scale, default) in zip(grid.flat, KNOBS, strict=True):
        chosen = [each for each in rows if (each.experiment, each.metric) == (experiment, metric)]
        for scene in dict.fromkeys(each.contender for each in chosen):
            points = sorted((each for each in chosen if each.contender == scene), key=lambda e: e.x)
            # On such an axis 0 stands for something else, and no line leads there.
            alone = points[:1] if scale == "symlog" else []
            points = points[len(alone) :]
            x = [each.x for each in points]
            medians = [each.median for each in points]
            (line,) = axes.plot(x, medians, marker="o", markersize=4, label=scene)
            colour = line.get_color()
            low, high = [each.min for each in points], [each.max for each in points]
            axes.fill_between(x, low, high, color=colour, alpha=0.1)
            for each in alone:
                axes.plot([each.x], [each.median], marker="s", markersize=5, color=colour)
        if scale == "symlog":
            axes.set_xscale("symlog", linthresh=10.0)
        else:
            axes.set_xscale(scale)
        ticks = sorted({each.x for each in chosen})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        if default is not None:
            axes.axvline(default, color="0.5", linestyle=":")
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw(rows: Sequence[Row], directory: Path) -> list[Path]:
    """All plots that there are rows for; where they lie."""
    wanted = [
        ("callers", "p99 ÷ bound", "callers that share the load", True),
        ("utilisation", "p99 ÷ bound", "utilisation", False),
        ("subsets", "p99 ÷ bound", "replicas that each caller uses", True),
    ]
    made = []
    present = {each.experiment for each in rows}
    for experiment, metric, xlabel, log in wanted:
        if experiment in present:
            path = directory / f"{experiment}.png"
            lines(rows, experiment, metric, path, xlabel=xlabel, log=log)
            made.append(path)
    if present.issuperset(name for name, *_ in KNOBS):
        path = directory / "knobs.png"
        knobs(rows, path)
        made.append(path)
    return made
