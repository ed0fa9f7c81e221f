"""The paper's tables: what ensembles of one, three and five servers do each second."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from shoal.testing import ZooKeeperEnsemble, ZooKeeperServer
from shoal_gateway.experiments.ensemble.load import prepare
from shoal_gateway.experiments.ensemble.press import Press

# Seconds at the begin of each step that don't count.
WARM = 0.5

Ensembles = Mapping[int, Sequence[ZooKeeperServer]]
# Says how far the steps are: done, of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Size:
    """Of the tables.

    Attributes:
        servers: Sizes of ensembles.
        reads: Shares of reads.
        workers: That create nodes.
        clients: That go through barriers together.
        barriers: That they go through, one after the other.
        rounds: Of all steps, in turns.
        seconds: Of a step, besides what does not count.
    """

    servers: Sequence[int] = (1, 3, 5)
    reads: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)
    workers: Sequence[int] = (1, 10, 20)
    clients: Sequence[int] = (5, 10, 20)
    barriers: Sequence[int] = (10, 20, 40)
    rounds: int = 5
    seconds: float = 2.0

    @property
    def steps(self) -> int:
        """How many there are."""
        return self.rounds * len(self.servers) * (len(self.reads) + len(self.workers))


SMALL = Size(
    servers=(1,), reads=(0.0, 1.0), workers=(4,), clients=(3,), barriers=(2,), rounds=1, seconds=0.5
)


@contextmanager
def ensembles(sizes: Sequence[int]) -> Iterator[Ensembles]:
    """All of them at once, so that all meet the same machine; an idle one costs next to nothing.

    Args:
        sizes: How many servers each has.
    """
    with ExitStack() as stack:
        made: dict[int, Sequence[ZooKeeperServer]] = {}
        for size in sizes:
            if size == 1:
                made[size] = [stack.enter_context(ZooKeeperServer())]
            else:
                made[size] = stack.enter_context(ZooKeeperEnsemble(size)).members
            prepare((made[size][0].address, made[size][0].port))
        yield made


def measure(found: Ensembles, size: Size, seed: int, progress: Progress) -> dict[str, Any]:
    """Every step of every round, each round over all ensembles in turn.

    Args:
        found: The ensembles.
        size: Of the tables.
        seed: Of the order of reads and writes.
        progress: Is told of each step.

    Returns:
        ``operations`` and ``creates``: rows of ``servers``, the share of reads or the number of
        workers, the figure of each round, their ``median``, ``least`` and ``most`` (operations a
        second), ``of_one_server`` (the same of each round's ratio to one server) and
        ``load_processors``, what the load itself used of the machine.
    """
    figures: dict[tuple[str, float, int], list[float]] = {}
    used: dict[tuple[str, float, int], list[float]] = {}
    done = 0
    for _ in range(size.rounds):
        for kind, shares in (("operations", size.reads), ("creates", size.workers)):
            for share in shares:
                for servers in size.servers:
                    press = (
                        Press(found[servers], seconds=WARM + size.seconds, reads=share, seed=seed)
                        if kind == "operations"
                        else Press(
                            found[servers], seconds=WARM + size.seconds, reads=None,
                            sessions=int(share), seed=seed,
                        )
                    )  # fmt: skip
                    try:
                        counted = press.wait()
                    finally:
                        press.stop()
                    key = (kind, share, servers)
                    rate = counted.of(press.begin + WARM, press.end) / size.seconds
                    figures.setdefault(key, []).append(rate)
                    used.setdefault(key, []).append(counted.processors)
                    done += 1
                    progress(done, size.steps)
    rows: dict[str, list[dict[str, Any]]] = {"operations": [], "creates": []}
    names = {"operations": "reads", "creates": "workers"}
    for (kind, share, servers), rounds in figures.items():
        alone = figures.get((kind, share, 1), rounds)
        ratios = [mine / its for mine, its in zip(rounds, alone, strict=True) if its]
        rows[kind].append({
            "servers": servers,
            names[kind]: share,
            "rounds": [round(each, 1) for each in rounds],
            **summary(rounds, 1),
            "of_one_server": summary(ratios, 3),
            "load_processors": round(statistics.median(used[kind, share, servers]), 2),
        })  # fmt: skip
    return rows


def summary(figures: Sequence[float], digits: int) -> dict[str, float]:
    """Median, least and most."""
    if not figures:
        return {}
    return {
        "median": round(statistics.median(figures), digits),
        "least": round(min(figures), digits),
        "most": round(max(figures), digits),
    }
