"""The picture of an outage of ZooKeeper: plain calls, requests, and who is registered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shoal_gateway.experiments.faults import Happened
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
    good = [each for each in probes if not each.failure]
    bad = [each for each in probes if each.failure]
    calls.plot(
        [each.at - began for each in good], [each.seconds * 1e3 for each in good],
        ".", markersize=2, color="#1b6ca8", label=f"{len(good)} answered",
    )  # fmt: skip
    if bad:
        calls.plot(
            [each.at - began for each in bad], [each.seconds * 1e3 for each in bad],
            "x", color="#cb181d", label=f"{len(bad)} failed",
        )  # fmt: skip
    calls.set_yscale("log")
    calls.set_ylabel("plain call, ms")
    calls.legend(loc="upper right", fontsize=8)
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
        for each in happened:
            panel.axvspan(each.at, each.until, color="#cb181d", alpha=0.15, linewidth=0, zorder=0)
    figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path)
