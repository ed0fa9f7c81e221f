"""What is left of a runner whose supervisor died."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from shoal_gateway.appmanager import supervisor
from shoal_gateway.appmanager.attempt import RUNNER_MARK

# Seconds that a guard has for killing its tree, and between looks at it.
GUARD_TIME = 5.0
LOOK = 0.02


class SurvivorError(Exception):
    """Processes of a runner can't be killed."""


def await_end(runner_id: str, timeout: float = 30.0) -> None:
    """Waits until no process of a runner is left, and kills those that stay.

    A guard kills its whole tree by itself, also those in it that cleared their environment, by
    which they are found here; so it gets its time first.

    Raises:
        SurvivorError: something outlived SIGKILL for ``timeout`` seconds.
    """
    began = time.monotonic()
    while left := marked(runner_id):
        waited = time.monotonic() - began
        if waited > timeout:
            raise SurvivorError(f"processes {left} of runner {runner_id} outlived SIGKILL")
        if waited > GUARD_TIME:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK)  # not our children: the kernel has no event for all of them


def marked(value: str, name: str = RUNNER_MARK) -> list[int]:
    """Processes that were born with a mark in their environment: a runner's, or another."""
    mark = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile, or somebody else's
        if mark in environment and supervisor.start_ticks(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found
