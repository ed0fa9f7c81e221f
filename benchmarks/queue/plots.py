"""The picture: what a job costs against how many wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.paired.rows import Row
from benchmarks.queue.queues import DELETING, LOCKING, REGISTRY

# Java's jute.maxbuffer, bytes.
LARGEST = 0xFFFFF
COLOURS = {REGISTRY: "tab:blue", LOCKING: "tab:orange", DELETING: "tab:green"}
METRICS = {"jobs/s": "jobs per second", "bytes a job": "bytes moved per job"}


def draw(rows: Sequence[Row], sizes: Sequence[int], java: Mapping[int, str], path: Path) -> Path:
    """Jobs per second and bytes a job, median with minimum and maximum."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for side, (metric, label) in zip(axes, METRICS.items(), strict=True):
        for name, colour in COLOURS.items():
            of = [row for row in rows if row.metric == metric and row.peer == name]
            low = [row.median - row.min for row in of]
            high = [row.max - row.median for row in of]
            side.errorbar(
                sizes,
                [row.median for row in of],
                yerr=[low, high],
                color=colour,
                marker="o",
                markersize=4,
                capsize=3,
                label=name,
            )
        side.set_xscale("log")
        side.set_yscale("log")
        side.set_xlabel("jobs that wait")
        side.set_ylabel(label)
        side.spines[["top", "right"]].set_visible(False)
        side.grid(color="0.9", which="major", linewidth=0.8)
    _limit(axes, [size for size in sizes if java[size] != "listed"])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _limit(axes: Sequence[Axes], refused: Sequence[int]) -> None:
    """Where Java's client gives up: the size of an answer, and the lengths that were refused."""
    rate, moved = axes
    moved.axhline(LARGEST, color="tab:red", linestyle=":", linewidth=1)
    moved.annotate(
        "Java's client refuses larger answers",
        (0.03, LARGEST * 1.15),
        xycoords=("axes fraction", "data"),
        fontsize=8,
        color="tab:red",
    )
    for size in refused:
        rate.axvline(size, color="tab:red", linestyle=":", linewidth=1)
        rate.annotate(
            "refused by Java's client ",
            (size, 0.97),
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            fontsize=8,
            color="tab:red",
        )
