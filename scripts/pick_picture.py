"""Draws docs/explanation/pick.png: the shipped balancer on a virtual clock, one replica slow.

    .venv/bin/python scripts/pick_picture.py

Eight threads of one caller call three replicas without a pause. A call takes 5 ms in the mean; from
5 s to 15 s it takes twenty times as long at one of them.
"""

from __future__ import annotations

import heapq
import math
import random
import threading
from collections import Counter
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from shoal_balancer import Balancer, Node, Outcome, PeakEwma, Replica

PICTURE = Path(__file__).parents[1] / "docs" / "explanation" / "pick.png"
THREADS = 8
USUAL, SLOW = 0.005, 20.0
BEGIN, END, LENGTH = 5.0, 15.0, 60.0
BUCKET = 0.5
COLOURS = {"one": "#00796b", "two": "#4db6ac", "three": "#d84315"}


def latency(replica: str, now: float, rng: random.Random) -> float:
    """Seconds that a call takes: log-normal, with the mean asked for."""
    mean = USUAL * (SLOW if replica == "three" and BEGIN <= now < END else 1.0)
    return mean * rng.lognormvariate(-0.125, 0.5)


def run() -> tuple[Counter[tuple[str, int]], list[tuple[float, dict[str, float]]]]:
    """Calls by replica and bucket; and what the caller holds each replica for, over time."""
    rng = random.Random(1)  # noqa: S311 - a picture that comes out the same
    now = 0.0
    balancer: Balancer[None] = Balancer(
        PeakEwma(),
        connect=lambda _: None,
        clock=lambda: now,
        rng=rng,
        lock=threading.RLock(),
    )
    balancer.update([Replica(name, "10.0.0.1", port) for port, name in enumerate(COLOURS, 1)])
    served: Counter[tuple[str, int]] = Counter()
    held: list[tuple[float, dict[str, float]]] = []
    # When each thread's call ends, how long it took, and at whom.
    ends: list[tuple[float, int, float, Node[None] | None]] = [
        (0.0, each, 0.0, None) for each in range(THREADS)
    ]
    look = 0.0
    while now < LENGTH:
        now, thread, took, node = heapq.heappop(ends)
        if node is not None:
            node.end(took, Outcome.OK, now)
            served[node.replica.id, math.floor(now / BUCKET)] += 1
        chosen = balancer.pick(now)
        if chosen is None:
            raise RuntimeError("a healthy set has somebody to call")
        chosen.begin()
        takes = latency(chosen.replica.id, now, rng)
        heapq.heappush(ends, (now + takes, thread, takes, chosen))
        if now >= look:
            nodes = balancer.snapshot.nodes
            held.append((now, {each.replica.id: each.load.estimate(now) or 0.0 for each in nodes}))
            look = now + 0.1
    return served, held


def main() -> None:
    """Runs it and draws."""
    served, held = run()
    figure, (calls, average) = plt.subplots(2, 1, figsize=(9, 5.2), sharex=True)
    times = [BUCKET * bucket for bucket in range(math.floor(LENGTH / BUCKET))]
    for name, colour in COLOURS.items():
        rates = [served[name, bucket] / BUCKET for bucket in range(len(times))]
        calls.plot(times, rates, color=colour, label=name)
        average.plot(
            [at for at, _ in held], [1000 * each[name] for _, each in held], color=colour, lw=0.9
        )
    for axes in (calls, average):
        axes.axvspan(BEGIN, END, color=COLOURS["three"], alpha=0.12, lw=0)
        axes.set_xlim(0, LENGTH)
        axes.grid(alpha=0.25)
    calls.set_ylabel("calls a second")
    calls.set_ylim(bottom=0)
    calls.legend(title="replica", loc="lower right", ncols=3)
    average.set_ylabel("peak EWMA, ms")
    average.set_yscale("log")
    average.set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    bad = [
        served["three", bucket] for bucket in range(int((BEGIN + 1) / BUCKET), int(END / BUCKET))
    ]
    share = sum(bad) / sum(
        served[name, bucket]
        for name in COLOURS
        for bucket in range(int((BEGIN + 1) / BUCKET), int(END / BUCKET))
    )
    print(f"the slow one's share from 1 s after it became slow: {share:.2%}")


if __name__ == "__main__":
    main()
