"""Pictures of the capacity experiment, from its report alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from shoal_gateway.experiments.capacity_analysis import OTHERS
from shoal_gateway.experiments.capacity_meters import JOBS, LOAD, ZOOKEEPER
from shoal_gateway.experiments.capacity_plan import BURN, FLEETS, NOOP, WAIT
from shoal_gateway.experiments.capacity_report import NAMES

COLOURS = {1: "#d95f02", 3: "#1b6ca8"}
PARTS = {
    "registry": "#1b6ca8",
    "api": "#66a5d9",
    "scheduler": "#1b9e77",
    "appmanager": "#e6ab02",
    JOBS: "#d95f02",
    ZOOKEEPER: "#7570b3",
    LOAD: "#999999",
    OTHERS: "#dddddd",
}


def draw_all(out: Path, report: dict[str, Any]) -> list[Path]:
    """Writes every picture that the report has data for."""
    drawn = [
        _throughput(out / "capacity-throughput.png", report),
        _latency(out / "capacity-latency.png", report),
        _processors(out / "capacity-processors.png", report),
    ]
    if any(each["by_n"] for each in report["series"].values()):
        drawn.append(_jobs(out / "capacity-n.png", report))
    kinds = [kind for kind in (BURN, NOOP) if any(_series(report, kind))]
    if kinds:
        drawn.append(_ceilings(out / "capacity-ceilings.png", report, kinds))
    if "left_out" not in report.get("celery", {"left_out": "an older report"}):
        drawn.append(draw_celery(out / "capacity-celery.png", report["celery"]))
    return drawn


def _series(report: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    names = (f"{kind}-{replicas}" for replicas in FLEETS)
    return [report["series"][name] for name in names if name in report["series"]]


def _sorted(steps: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return sorted(steps, key=lambda each: float(each[key]))


def _throughput(path: Path, report: dict[str, Any]) -> Path:
    figure = Figure(figsize=(8.0, 5.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    _rates(axes, _series(report, WAIT))
    slots = report["slots_of_each_manager"]
    axes.set_title(f"{NAMES[WAIT]}, {slots} slots for each app manager", loc="left", fontsize=11)
    return _write(figure, path)


def _ceilings(path: Path, report: dict[str, Any], kinds: list[str]) -> Path:
    figure = Figure(figsize=(6.0 * len(kinds), 4.8), dpi=120, layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        series = _series(report, kind)
        _rates(axes, series)
        ceiling = max(each["knee"]["ceiling"] for each in series)
        cores = series[0]["by_rate"][0]["load"]["cores"]
        whose = f"the ceiling of this machine, {cores} processors"
        if not _machine(series):
            whose = "the most that was seen"
        axes.axhline(ceiling, color="#555555", linewidth=1.0, linestyle="-.")
        axes.annotate(
            f"{ceiling:.1f}/s: {whose}",
            (0.98, ceiling), xycoords=("axes fraction", "data"), xytext=(0, 4),
            textcoords="offset points", ha="right", fontsize=8, color="#333333",
        )  # fmt: skip
        axes.set_title(NAMES[kind], loc="left", fontsize=11)
    return _write(figure, path)


def _machine(series: list[dict[str, Any]]) -> bool:
    """Whether the ceiling is the machine's: the fleet with the most replicas filled it, alone."""
    largest = max(series, key=lambda each: int(each["replicas"]))
    return any(why.startswith("the machine") for why in largest["saturated"]) and not any(
        step["disturbed"] for step in largest["by_rate"]
    )


def _rates(axes: Axes, series: list[dict[str, Any]]) -> None:
    """Successes per second against the offered rate, a line for each fleet."""
    longest = max(step["offered"] for each in series for step in each["by_rate"])
    axes.plot([0.0, longest], [0.0, longest], color="#aaaaaa", linestyle="--", linewidth=1.0)
    axes.text(longest, longest, "all of it ", ha="right", va="bottom", fontsize=8, color="#777777")
    for row, each in enumerate(series):
        colour = COLOURS[each["replicas"]]
        steps = _sorted(each["by_rate"], "offered")
        axes.plot(
            [step["offered"] for step in steps],
            [step["achieved"] for step in steps],
            marker="o", color=colour, label=f"{each['replicas']} of each service",
        )  # fmt: skip
        knee = each["knee"]
        if knee["above"] is not None:
            # A strip for each fleet, one above the other: their knees may be the same.
            axes.axvspan(knee["below"] or 0.0, knee["above"], 0.06 * row, 0.06 * (row + 1),
                         color=colour, alpha=0.3, linewidth=0)  # fmt: skip
            axes.text(
                ((knee["below"] or 0.0) + knee["above"]) / 2.0, 0.06 * row + 0.03,
                f"knee of {each['replicas']}", color="#222222", fontsize=8, ha="center",
                va="center", transform=axes.get_xaxis_transform(),
            )  # fmt: skip
    axes.set_xlim(0.0, longest * 1.05)
    axes.set_ylim(0.0, longest * 1.1)
    axes.set_xlabel("offered: arrivals per second")
    axes.set_ylabel("successes per second")
    axes.legend(loc="upper left", fontsize=9)
    axes.grid(alpha=0.25)


def _latency(path: Path, report: dict[str, Any]) -> Path:
    series = _series(report, WAIT)
    figure = Figure(figsize=(5.2 * len(series), 4.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(series), squeeze=False, sharey=True)[0]
    for axes, each in zip(panels, series, strict=True):
        steps = [step for step in _sorted(each["by_rate"], "offered") if step["latency"]]
        for share, style in (("p50", "-"), ("p95", "--"), ("p99", ":")):
            axes.plot(
                [step["offered"] for step in steps],
                [step["latency"][share] for step in steps],
                linestyle=style, marker="o", color=COLOURS[each["replicas"]], label=share,
            )  # fmt: skip
        knee = each["knee"]
        if knee["above"] is not None:
            axes.axvspan(knee["below"] or 0.0, knee["above"], color="#888888", alpha=0.15,
                         linewidth=0, label="knee")  # fmt: skip
        axes.axhline(report["patience_seconds"], color="#cb181d", linewidth=1.0)
        axes.text(0.02, report["patience_seconds"], "patience", color="#cb181d", fontsize=8,
                  va="bottom", transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(left=0.0)
        axes.set_xlabel("offered: arrivals per second")
        axes.set_title(f"{each['replicas']} of each service", loc="left", fontsize=11)
        axes.grid(alpha=0.25, which="both")
        axes.legend(loc="lower right", fontsize=9)
    panels[0].set_ylabel(f"seconds from arrival to end; {NAMES[WAIT]}")
    return _write(figure, path)


def _jobs(path: Path, report: dict[str, Any]) -> Path:
    figure = Figure(figsize=(8.0, 5.6), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    patience = report["patience_seconds"]
    for each in _series(report, WAIT):
        steps = _sorted(each["by_n"], "jobs")
        colour = COLOURS[each["replicas"]]
        counts = [step["jobs"] for step in steps]
        above.plot(counts, [step["achieved"] for step in steps], marker="o", color=colour,
                   label=f"{each['replicas']} of each service")  # fmt: skip
        below.plot(counts, [100.0 * step["failed"] / step["jobs"] for step in steps], marker="o",
                   color=colour)  # fmt: skip
        failing = each["first_failing_n"]
        if failing is not None:
            above.axvline(failing, color=colour, linestyle=":", linewidth=1.2)
            above.text(failing, 0.03, f" first failures: N = {failing}", color=colour, fontsize=8,
                       transform=above.get_xaxis_transform())  # fmt: skip
            below.axvline(failing, color=colour, linestyle=":", linewidth=1.2)
    above.set_ylim(bottom=0.0)
    above.set_xlim(left=0.0)
    above.set_ylabel("successes per second")
    above.legend(loc="upper left", fontsize=9)
    above.set_title(f"N {NAMES[WAIT]}, all submitted at once", loc="left", fontsize=11)
    below.set_ylabel(f"% not done\nwithin {patience:g} s")
    below.set_xlabel("N: jobs that are submitted at once")
    for axes in (above, below):
        axes.grid(alpha=0.25)
    return _write(figure, path)


def _processors(path: Path, report: dict[str, Any]) -> Path:
    """Who uses the processors, and how full the slots are, step by step."""
    kinds = [kind for kind in (WAIT, BURN, NOOP) if _series(report, kind)]
    fleets = max(len(_series(report, kind)) for kind in kinds)
    figure = Figure(figsize=(2.6 + 3.0 * len(kinds), 1.2 + 2.9 * fleets), dpi=120,
                    layout="constrained")  # fmt: skip
    # Fleets below each other, so that what they were offered stands at the same place.
    grid = figure.subplots(fleets, len(kinds), squeeze=False, sharey=True)
    shown = [
        (axes, each)
        for column, kind in enumerate(kinds)
        for axes, each in zip(grid[:, column], _series(report, kind), strict=False)
    ]
    cores = 0
    for axes, each in shown:
        steps = _sorted(each["by_rate"], "offered")
        bottoms = [0.0] * len(steps)
        for part, colour in PARTS.items():
            heights = [step["load"]["services"].get(part, 0.0) for step in steps]
            axes.bar(range(len(steps)), heights, 0.75, bottom=bottoms, color=colour, label=part)
            bottoms = [low + high for low, high in zip(bottoms, heights, strict=True)]
        cores = steps[0]["load"]["cores"]
        axes.axhline(cores, color="#cb181d", linewidth=1.0)
        for place, step in enumerate(steps):
            axes.text(place, cores * 1.02, f"{step['load']['slots_used']:.0%}", ha="center",
                      fontsize=8)  # fmt: skip
        axes.set_xticks(range(len(steps)), [f"{step['offered']:.1f}" for step in steps], fontsize=8)
        kind = next(kind for kind, name in NAMES.items() if name == each["what"])
        axes.set_title(f"{kind}, {each['replicas']} of each service", loc="left", fontsize=9)
        axes.set_ylim(0.0, cores * 1.14)
    for axes in grid[:, 0]:
        axes.set_ylabel("processors in use")
    figure.supxlabel(
        "offered: arrivals per second. Red: all processors of the machine. Above it: share of "
        "slots in use", fontsize=9,
    )  # fmt: skip
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize=8)
    return _write(figure, path)


def draw_celery(path: Path, beside: dict[str, Any]) -> Path:
    """Both sides' rates round by round, and what became of jobs that something was killed under."""
    figure = Figure(figsize=(12.0, 4.8), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for (name, its), colour in zip(beside["rates"].items(), ("#1b6ca8", "#d95f02"), strict=True):
        rounds = its["rounds"]
        left.plot(range(1, len(rounds) + 1), rounds, marker="o", color=colour, label=name)
    left.set_xticks(range(1, len(rounds) + 1))
    left.set_xlabel("round")
    left.set_ylabel("no-op jobs per second, submit to result")
    left.set_ylim(bottom=0.0)
    left.legend(fontsize=9)
    ratio = beside["ratio"]
    left.set_title(
        f"Shoal by Celery: {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})",
        loc="left", fontsize=11,
    )  # fmt: skip
    losses = beside["losses"][::-1]
    names = [f"{each['side']}: {each['what'].split(':')[0]}" for each in losses]
    begin = [0.0] * len(losses)
    for kind, colour in (("succeeded", "#a1d99b"), ("failed", "#e6ab02"), ("lost", "#cb181d")):
        widths = [each[kind] for each in losses]
        right.barh(names, widths, left=begin, color=colour, label=kind)
        begin = [low + width for low, width in zip(begin, widths, strict=True)]
    for row, each in enumerate(losses):
        right.text(0.0, row, f" after {each['seconds']:.1f} s", va="center", fontsize=8)
    right.set_xlabel("acknowledged jobs")
    right.set_title("What became of them when SIGKILL hit", loc="left", fontsize=11)
    right.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, -0.25), ncols=3)
    return _write(figure, path)


def _write(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    figure.savefig(path)
    return path
