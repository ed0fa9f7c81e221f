"""Pictures of a run: what was done each second, how long calls took, what was broken meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shoal_gateway.experiments.faults import Happened
from shoal_gateway.experiments.measures import per_second
from shoal_gateway.experiments.prober import Probe

COLOURS = ("#9ecae1", "#fdae6b", "#a1d99b", "#bcbddc")
# Entries of the legend in one column.
LISTED = 26


def throughput(
    path: Path,
    series: Mapping[str, Sequence[float]],
    happened: Sequence[Happened],
    seconds: float,
    title: str,
    *,
    unit: str = "jobs succeeded",
) -> None:
    """Writes the picture of a run.

    Bars are what succeeded in each whole second, stacked by series; the line is all of it so far; a
    red band is as long as something was broken, and its number stands in the list on the right.

    Args:
        path: A PNG file.
        series: By name, when each success was told, in seconds since the run began.
        happened: What was broken.
        seconds: How long the run took.
        title: Above it.
        unit: What is counted.
    """
    figure = Figure(figsize=(13.0, 6.0), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    bottom = [0] * (int(seconds) + 1)
    for (name, moments), colour in zip(series.items(), COLOURS, strict=False):
        counts = per_second(moments, seconds)
        axes.bar(
            range(len(counts)), counts, bottom=bottom, width=1.0, align="edge", color=colour,
            label=name,
        )  # fmt: skip
        bottom = [low + count for low, count in zip(bottom, counts, strict=True)]
    top = max([*bottom, 1]) * 1.45
    axes.set_ylim(0, top)
    axes.set_xlim(0, len(bottom))
    running, total = [0], 0
    for count in bottom:
        total += count
        running.append(total)
    whole = axes.twinx()
    whole.plot(range(len(running)), running, color="#08519c", label="in all")
    whole.set_ylim(0, max(total, 1) * 1.3)
    whole.set_ylabel(f"{unit} in all")
    for each in happened:
        axes.axvspan(each.at, each.until, color="#cb181d", alpha=0.18, linewidth=0, zorder=0)
        axes.axvline(each.at, color="#cb181d", linewidth=0.8)
        axes.text(
            each.at, top * (0.97 - 0.055 * (each.number % 3)), str(each.number), color="white",
            # Above the legend, which must hide none.
            fontsize=7, ha="center", va="center", zorder=6,
            bbox={"boxstyle": "circle,pad=0.22", "facecolor": "#cb181d", "edgecolor": "none"},
        )  # fmt: skip
    axes.set_xlabel("seconds since the run began")
    axes.set_ylabel(f"{unit} per second")
    axes.set_title(title, loc="left", fontsize=11)
    handles, names = axes.get_legend_handles_labels()
    lines, labels = whole.get_legend_handles_labels()
    axes.legend([*handles, *lines], [*names, *labels], loc="upper left", fontsize=8, framealpha=0.9)
    listed = [
        f"{each.number:>2}  {each.what}, {each.at:.0f}–{each.until:.0f} s" for each in happened
    ]
    for column in range(0, len(listed), LISTED):
        figure.text(
            1.01 + 0.2 * (column // LISTED), 0.97, "\n".join(listed[column : column + LISTED]),
            fontsize=8, va="top", family="monospace", linespacing=1.35,
        )  # fmt: skip
    FigureCanvasAgg(figure)
    figure.savefig(path, bbox_inches="tight")


def calls(
    path: Path,
    probes: Mapping[str, Sequence[Probe]],
    happened: Sequence[Happened],
    began: float,
    seconds: float,
    title: str,
) -> None:
    """Writes the picture of plain calls: a panel for each kind of caller over one time axis.

    Args:
        path: A PNG file.
        probes: By kind of caller, its calls.
        happened: What was broken.
        began: Monotonic time from which seconds are counted.
        seconds: How long the run took.
        title: Above it.
    """
    figure = Figure(figsize=(13.0, 1.0 + 2.8 * len(probes)), dpi=110, layout="constrained")
    panels = figure.subplots(len(probes), sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, (name, its) in zip(panels, probes.items(), strict=True):
        calls_panel(panel, its, began)
        bands(panel, happened)
        panel.set_ylabel(f"plain call, ms\n{name}")
        for each in happened:
            panel.annotate(
                str(each.number), (each.at, 1.0), xycoords=("data", "axes fraction"),
                xytext=(2, -2), textcoords="offset points", fontsize=8, va="top", color="#cb181d",
            )  # fmt: skip
    panels[-1].set_xlim(0.0, seconds)
    panels[-1].set_xlabel("seconds since the run began")
    figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path)


def calls_panel(axes: Axes, probes: Sequence[Probe], began: float) -> None:
    """How long each of the calls took, and which failed."""
    kinds = (("answered", ".", "#1b6ca8", False), ("failed", "x", "#cb181d", True))
    for word, marker, colour, failed in kinds:
        its = [each for each in probes if bool(each.failure) is failed]
        if its or not failed:
            axes.plot(
                [each.at - began for each in its], [each.seconds * 1e3 for each in its],
                marker, markersize=5 if failed else 2, color=colour, label=f"{len(its)} {word}",
            )  # fmt: skip
    axes.set_yscale("log")
    axes.legend(loc="upper right", fontsize=8)


def bands(axes: Axes, happened: Sequence[Happened]) -> None:
    """Red as long as something was broken."""
    for each in happened:
        axes.axvspan(each.at, each.until, color="#cb181d", alpha=0.15, linewidth=0, zorder=0)
