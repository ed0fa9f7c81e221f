"""Waiting until replicas that were just started can be found in the directory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shoal import Replica
from shoal.directory import Directory
from shoal_gateway.fleet import processes
from shoal_gateway.fleet.errors import FleetError
from shoal_gateway.fleet.state import ReplicaState

# Told of progress: what is done, how much of how much.
Progress = Callable[[str, int, int], None]

# Seconds between looks at whether a process died: the directory only tells of those that live.
LOOK = 0.2
# Lines of a dead replica's log that are shown.
SHOWN = 12


def silent(_what: str, _done: int, _total: int) -> None:
    """Nobody wants to hear of progress."""


def await_announced(
    directory: Directory,
    wanted: Sequence[ReplicaState],
    *,
    log: Callable[[ReplicaState], Path],
    progress: Progress = silent,
    timeout: float = 60.0,
) -> None:
    """Waits until the present process of each replica is announced.

    Args:
        directory: Where they announce themselves.
        wanted: The replicas, each with its process.
        log: Where a replica's log lies.
        progress: Told how many were found.
        timeout: Seconds.

    Raises:
        FleetError: one died (the end of its log is in the message), or was late.
    """
    births = {each.id: birth(each) for each in wanted}
    changed = threading.Event()
    seen: dict[str, tuple[Replica, ...]] = {}
    for service in sorted({each.service for each in wanted}):

        def look(replicas: tuple[Replica, ...], service: str = service) -> None:
            seen[service] = replicas
            changed.set()

        directory.watch(service).subscribe(look)
    deadline = time.monotonic() + timeout
    while True:
        # Copied in one step, for the watches' threads write to it.
        arrived = present([each for found in list(seen.values()) for each in found], births)
        progress("replicas found", len(arrived), len(wanted))
        missing = [each for each in wanted if each.id not in arrived]
        if not missing:
            return
        for each in missing:
            if each.process is None or not processes.alive(each.process):
                raise FleetError(_obituary(each, log(each)))
        if time.monotonic() > deadline:
            late = "\n".join(f"  {each.id}: {log(each)}" for each in missing)
            raise FleetError(f"not announced within {timeout:g} s; their logs may say why:\n{late}")
        changed.wait(LOOK)
        changed.clear()


def present(announced: Sequence[Replica], births: Mapping[str, float]) -> frozenset[str]:
    """Which replicas have announced themselves since their birth and take calls.

    A former life's node may still be there, for a killed process's session must time out first;
    so what counts was announced after the birth.

    Args:
        announced: What the directory lists.
        births: By id, when the process started, in seconds since 1970.
    """
    return frozenset(
        each.id
        for each in announced
        if each.routable and each.id in births and each.registered_at >= births[each.id]
    )


def birth(replica: ReplicaState) -> float:
    """When a replica's process started, seconds since 1970; a second early, for the grain."""
    if replica.process is None:
        return 0.0
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    ticks = os.sysconf("SC_CLK_TCK")
    return time.time() - uptime + replica.process.started / ticks - 1.0


def _obituary(replica: ReplicaState, log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN:]
    except FileNotFoundError:
        lines = ["(it has no log: its host was lost)"]
    return f"{replica.id} ended before it could be found; the end of {log}:\n" + "\n".join(lines)
