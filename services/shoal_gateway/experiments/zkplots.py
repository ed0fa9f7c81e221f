"""The picture of an outage of ZooKeeper: plain calls, requests, and who is registered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shoal_gateway.experiments.faults import Happened
from shoal_gateway.experiments.plots import bands, calls_panel
from shoal_gateway.experiments.prober import Probe
from shoal_gateway.experiments.zkmeter import Sample, per_second


def outage(
    path: Path,
    samples: Sequence[Sample],
    probes: Sequence[Probe],
    happened: Sequence[Happened],
    began: float,
    title: str,
) -> None:
    """Writes the picture: three panels over one time axis, red while something was broken.

    Args:
        path: A PNG file.
        samples: Looks at ZooKeeper.
        probes: Plain calls.
        happened: What was broken.
        began: Monotonic time from which seconds are counted.
        title: Above it.
    """
    figure = Figure(figsize=(11.0, 8.0), dpi=110, layout="constrained")
    calls, requests, registered = figure.subplots(3, sharex=True)
    calls_panel(calls, probes, began)
    calls.set_ylabel("plain call, ms")
    counts = per_second(samples, began, samples[-1].at)
    requests.bar(range(len(counts)), counts, width=1.0, align="edge", color="#7570b3")
    requests.set_ylabel("requests a second\nat ZooKeeper")
    registered.step(
        [each.at - began for each in samples], [len(each.registered) for each in samples],
        where="post", color="#1b9e77",
    )  # fmt: skip
    registered.set_ylim(bottom=0)
    registered.set_ylabel("replicas registered\nby a connected session")
    registered.set_xlabel("seconds since the run began")
    registered.set_xlim(0.0, samples[-1].at - began)
    for panel in (calls, requests, registered):
        bands(panel, happened)
    figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path)
