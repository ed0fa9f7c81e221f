"""The paper's table of barriers: how long clients take to go through many, one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from shoal.directory import Directory
from shoal.recipes.barrier import DoubleBarrier
from shoal.testing import ZooKeeperServer
from shoal_gateway.experiments.ensemble.tables import summary
from shoal_gateway.fleet import FleetError

# Seconds for all barriers of a step.
PATIENCE = 300.0


def measure(
    servers: Sequence[ZooKeeperServer],
    clients: Sequence[int],
    barriers: Sequence[int],
    rounds: int,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Each number of clients through each number of double barriers, in rounds.

    Args:
        servers: Of one ensemble.
        clients: Each a session of its own; all of them in this process.
        barriers: That each enters and leaves, one after the other.
        rounds: Of all.
        progress: Is told of each step.

    Returns:
        Rows of ``clients``, ``barriers``, the seconds of each round, their ``median``, ``least``
        and ``most``, and the median of barriers a second.

    Raises:
        FleetError: somebody did not get through.
    """
    hosts = ",".join(each.hosts for each in servers)
    found: dict[tuple[int, int], list[float]] = {}
    steps, done = rounds * len(clients) * len(barriers), 0
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(Directory(f"{hosts}/barriers", session_timeout=30.0))
            for _ in range(max(clients))
        ]
        _through(sessions, 1, "warm")
        for number in range(rounds):
            for many in clients:
                for count in barriers:
                    seconds = _through(sessions[:many], count, f"{number}-{many}-{count}")
                    found.setdefault((many, count), []).append(seconds)
                    done += 1
                    progress(done, steps)
    return [
        {
            "clients": many,
            "barriers": count,
            "rounds": [round(each, 2) for each in its],
            **summary(its, 2),
            "barriers_per_second": round(count / summary(its, 4)["median"], 1),
        }
        for (many, count), its in found.items()
    ]


def _through(sessions: Sequence[Directory], count: int, name: str) -> float:
    """How long all take, seconds."""
    failed: list[BaseException] = []

    def go(session: Directory) -> None:
        try:
            for number in range(count):
                with DoubleBarrier(session, f"{name}-{number}", len(sessions), timeout=PATIENCE):
                    pass
        except Exception as error:  # noqa: BLE001 - raised below, for who waits
            failed.append(error)

    threads = [threading.Thread(target=go, args=[each], daemon=True) for each in sessions]
    began = time.monotonic()
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
    if failed or any(each.is_alive() for each in threads):
        why = failed[0] if failed else f"they were not through after {PATIENCE:g} s"
        raise FleetError(f"barriers {name} of {len(sessions)} clients: {why}")
    return time.monotonic() - began
