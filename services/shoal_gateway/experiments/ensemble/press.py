"""Processes of load, started together and heard out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

from shoal.testing import ZooKeeperServer
from shoal_gateway.experiments.ensemble.load import Counted, Plan, parse
from shoal_gateway.fleet import FleetError

PROCESSES = 2
# Seconds from the word to begin until all begin at once, their sessions opened.
START = 0.3


class Press:
    """Load under way.

        press = Press(servers, seconds=3.0, reads=0.7)
        counted = press.wait()

    Args:
        servers: Of ZooKeeper; sessions are spread over them.
        seconds: How long.
        reads: As `Plan` has it, and so are the others.
        sessions: In all, over the processes.

    Attributes:
        begin: When the load begins, monotonic seconds.
        end: When it ends.

    Raises:
        FleetError: a process did not start.
    """

    def __init__(
        self,
        servers: Sequence[ZooKeeperServer],
        *,
        seconds: float,
        reads: float | None,
        sessions: int = 8,
        window: int = 64,
        rate: float | None = None,
        seed: int = 1,
    ) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "shoal_gateway.experiments.ensemble.load"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(min(PROCESSES, sessions))
        ]
        try:
            for process in self._processes:
                _await(process)
            self.begin = time.monotonic() + START
            self.end = self.begin + seconds
            places = [(each.address, each.port) for each in servers]
            plan = Plan(places, self.begin, self.end, 0, 0, reads, window, rate, seed)
            parts = _parts(plan, sessions, len(self._processes))
            for process, part in zip(self._processes, parts, strict=True):
                _tell(process, part)
        except BaseException:
            self.stop()
            raise

    def wait(self) -> Counted:
        """What all have counted, once they have ended.

        Raises:
            FleetError: one of them broke off.
        """
        total = Counted()
        for process in self._processes:
            left = max(0.0, self.end - time.monotonic())
            said, complaint = process.communicate(timeout=left + 60.0)
            if process.returncode:
                raise FleetError(f"a process of load broke off: {complaint.strip()[-800:]}")
            total.add(parse(said))
        return total

    def stop(self) -> None:
        """Ends them now, whatever they have counted."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def _await(process: subprocess.Popen[str]) -> None:
    if process.stdout is None or process.stdout.readline() != "ready\n":
        raise FleetError(f"a process of load did not start: {process.communicate()[1]}")


def _tell(process: subprocess.Popen[str], plan: Plan) -> None:
    if process.stdin is not None:
        process.stdin.write(json.dumps(asdict(plan)) + "\n")
        process.stdin.flush()


def _parts(plan: Plan, sessions: int, count: int) -> list[Plan]:
    """A plan for each process."""
    parts = []
    first = 0
    for place in range(count):
        share = sessions // count + (place < sessions % count)
        parts.append(replace(plan, sessions=share, first=first))
        first += share
    return parts
