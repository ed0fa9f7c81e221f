"""The picture: what a job costs against how many wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.paired.rows import Row
from benchmarks.queue.queues import DELETING, LOCKING, REGISTRY

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
        refused = [size for size in sizes if java[size] != "listed"]
        if refused:
            side.axvline(min(refused), color="tab:red", linestyle=":", linewidth=1)
            side.annotate(
                "Java's client refuses\nthe list (over 1 MB) ",
                (min(refused), 0.98),
                xycoords=("data", "axes fraction"),
                ha="right",
                va="top",
                fontsize=8,
                color="tab:red",
            )
        side.set_xscale("log")
        side.set_yscale("log")
        side.set_xlabel("jobs that wait")
        side.set_ylabel(label)
        side.spines[["top", "right"]].set_visible(False)
        side.grid(color="0.9", which="major", linewidth=0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
