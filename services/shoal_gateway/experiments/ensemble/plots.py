"""Pictures: throughput by servers and reads, and the time series of failures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shoal_gateway.experiments.ensemble.load import Counted
from shoal_gateway.experiments.ensemble.series import per_bucket
from shoal_gateway.experiments.faults import Happened
from shoal_gateway.experiments.measures import per_second
from shoal_gateway.experiments.plots import bands

COLOURS = {1: "#7570b3", 3: "#1b9e77", 5: "#d95f02"}
# Seconds of a bucket of the time series: less than an election takes, or it would hide one.
WIDTH = 0.5


def tables(path: Path, rows: dict[str, Any]) -> None:
    """Writes the two tables' picture: operations by share of reads, creates by workers.

    Args:
        path: A PNG file.
        rows: As `tables.measure` returns them.
    """
    figure = Figure(figsize=(11.0, 4.5), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, rows["operations"], "reads", scale=100.0)
    left.set_xlabel("reads, % of the operations")
    left.set_ylabel("operations a second")
    _lines(right, rows["creates"], "workers", scale=1.0)
    right.set_xlabel("workers, each waiting for its node")
    right.set_ylabel("nodes created a second")
    figure.suptitle(
        "Medians of the rounds; bars from the least to the most", x=0.02, ha="left", fontsize=11
    )
    FigureCanvasAgg(figure)
    figure.savefig(path)


def failures(
    path: Path,
    counted: Counted,
    jobs: Sequence[float],
    happened: Sequence[Happened],
    began: float,
    title: str,
) -> None:
    """Writes the time series: ZooKeeper's answers above, the gateway's jobs below.

    Args:
        path: A PNG file.
        counted: ZooKeeper's answers.
        jobs: When successes were told, seconds after ``began``.
        happened: The events.
        began: Monotonic time of the run's begin.
        title: Above it.
    """
    seconds = max([*jobs, *(each.until for each in happened)])
    figure = Figure(figsize=(12.0, 7.0), dpi=110, layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    kinds = (("reads", counted.reads, "#1b6ca8"), ("writes", counted.writes, "#d95f02"))
    for name, answers, colour in kinds:
        rates = per_bucket(answers, began, seconds, WIDTH)
        above.plot([place * WIDTH for place in range(len(rates))], rates, drawstyle="steps-post",
                   linewidth=1.0, color=colour, label=name)  # fmt: skip
    above.set_ylabel("answered by ZooKeeper\na second")
    above.legend(loc="lower left", fontsize=8)
    counts = per_second(jobs, seconds)
    below.bar(range(len(counts)), counts, width=1.0, align="edge", color="#9ecae1", label="each s")
    smooth = [
        sum(counts[max(0, place - 9) : place + 1]) / min(place + 1, 10)
        for place in range(len(counts))
    ]
    below.plot(range(1, len(smooth) + 1), smooth, color="#08519c", label="mean of ten seconds")
    below.set_ylabel("jobs succeeded\na second")
    below.set_xlabel("seconds since the run began")
    below.legend(loc="lower left", fontsize=8)
    for panel in (above, below):
        bands(panel, happened)
        panel.set_ylim(bottom=0)
        panel.set_xlim(0, seconds)
    for each in happened:
        above.annotate(
            f"{each.number} {each.what}", (each.at, 1.0), xycoords=("data", "axes fraction"),
            xytext=(2, 4), textcoords="offset points", fontsize=8, color="#cb181d", rotation=12,
        )  # fmt: skip
    figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path)


def _lines(axes: Axes, rows: Sequence[dict[str, Any]], name: str, *, scale: float) -> None:
    for servers in sorted({row["servers"] for row in rows}):
        its = sorted((row for row in rows if row["servers"] == servers), key=lambda row: row[name])
        medians = [row["median"] for row in its]
        axes.errorbar(
            [row[name] * scale for row in its], medians,
            yerr=[
                [median - row["least"] for median, row in zip(medians, its, strict=True)],
                [row["most"] - median for median, row in zip(medians, its, strict=True)],
            ],
            marker="o", capsize=3, color=COLOURS.get(servers), label=f"{servers} servers",
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
