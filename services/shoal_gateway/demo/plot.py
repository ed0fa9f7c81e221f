"""The picture of a run: successes per second, and what was killed when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done to the fleet.

    Attributes:
        at: Seconds since the run began.
        label: What: "registry-2 killed".
        fault: Whether it was a fault, or its mending.
    """

    at: float
    label: str
    fault: bool


def buckets(successes: Sequence[float], seconds: float) -> list[int]:
    """Successes in each whole second from 0 to ``seconds``."""
    counts = Counter(int(at) for at in successes)
    return [counts[second] for second in range(int(seconds) + 1)]


def draw(
    path: Path, successes: Sequence[float], marks: Sequence[Mark], seconds: float, title: str
) -> None:
    """Writes the picture.

    Args:
        path: A PNG file.
        successes: When each job succeeded, in seconds since the run began.
        marks: What was done to the fleet, numbered in the picture.
        seconds: How long the run took.
        title: Above it.
    """
    counts = buckets(successes, seconds)
    figure = Figure(figsize=(10.0, 5.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.bar(
        range(len(counts)), counts, width=1.0, align="edge", color="#9ecae1", label="per second"
    )
    running = [sum(counts[: second + 1]) for second in range(len(counts))]
    total = axes.twinx()
    total.plot(range(len(running) + 1), [0, *running], color="#08519c", label="in all")
    total.set_ylabel("jobs succeeded in all")
    total.set_ylim(0, max(running[-1] if running else 1, 1) * 1.3)
    top = max([*counts, 1]) * 1.45
    axes.set_ylim(0, top)
    axes.set_xlim(0, len(counts))
    faults = [mark for mark in marks if mark.fault]
    for number, mark in enumerate(sorted(faults, key=lambda each: each.at), start=1):
        axes.axvline(mark.at, color="#cb181d", linewidth=1.0)
        height = top * (0.97 if number % 2 else 0.90)
        axes.text(
            mark.at, height, str(number), color="white", fontsize=8, ha="center", va="center",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "#cb181d", "edgecolor": "none"},
        )  # fmt: skip
    for mark in marks:
        if not mark.fault:
            axes.axvline(mark.at, color="#238b45", linewidth=0.8, linestyle=":")
    axes.set_xlabel("seconds since the first job was submitted")
    axes.set_ylabel("jobs succeeded per second")
    axes.set_title(title, loc="left", fontsize=11)
    legend = [
        f"{number}  {mark.label} ({mark.at:.0f} s)"
        for number, mark in enumerate(sorted(faults, key=lambda each: each.at), start=1)
    ]
    figure.text(0.01, -0.01, "   ".join(legend[:3]), fontsize=8, va="top")
    figure.text(
        0.01, -0.05, "   ".join([*legend[3:], "dotted green: brought back"]), fontsize=8, va="top"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, bbox_inches="tight")
