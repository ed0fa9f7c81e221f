"""What the two sides have in common."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

WORKERS = 2
TICK = float(os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True, slots=True)
class Round:
    """One round of jobs.

    Attributes:
        jobs: How many.
        submitted: Seconds until all were acknowledged.
        ended: Seconds until the terminal record of each was seen by who submitted.
        cpu: CPU milliseconds for each job, by process.
    """

    jobs: int
    submitted: float
    ended: float
    cpu: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Jobs per second, end to end."""
        return self.jobs / self.ended


class Side(Protocol):
    """A way to have jobs done."""

    name: str

    def run(self, jobs: int, *, single: bool) -> Round:
        """Has so many no-op jobs done; one submitted at a time, or as many as the side can."""


class Meter:
    """CPU time of processes, by name, since it was made.

    Args:
        processes: Ids by name.
    """

    def __init__(self, processes: dict[str, list[int]]) -> None:
        self._processes = processes
        self._before = {name: cpu_seconds(pids) for name, pids in processes.items()}

    def per_job(self, jobs: int) -> dict[str, float]:
        """Milliseconds for each job."""
        return {
            name: 1000.0 * (cpu_seconds(pids) - self._before[name]) / jobs
            for name, pids in self._processes.items()
        }


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes so far; of one that has ended, none."""
    total = 0.0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def children(pid: int) -> list[int]:
    """Processes that a process has started and that live."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    threads = path.parent.parent
    found: list[int] = []
    for thread in threads.iterdir() if threads.is_dir() else []:
        try:
            found += map(int, (thread / "children").read_text(encoding="utf-8").split())
        except OSError:
            continue
    return found
