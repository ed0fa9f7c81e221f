"""What is left of a runner whose supervisor died, or of an account whose worker did."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

from shoal_gateway.appmanager import supervisor
from shoal_gateway.appmanager.attempt import RUNNER_MARK

logger = logging.getLogger(__name__)

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
            supervisor.send(left, signal.SIGKILL)
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


def end_all(uid: int, timeout: float = 5.0) -> None:
    """Kills every process of an account, however it detached itself, and waits for their end."""
    began = time.monotonic()
    while left := of_account(uid):
        if time.monotonic() - began > timeout:
            logger.error("processes %s of uid %d outlived SIGKILL", left, uid)
            return
        stopped: set[int] = set()
        # First all are stopped, so that none can start another while they are being killed.
        while fresh := set(of_account(uid)) - stopped:
            supervisor.send(fresh, signal.SIGSTOP)
            stopped |= fresh
        supervisor.send(stopped, signal.SIGKILL)
        time.sleep(LOOK)  # not our children: the kernel has no event for all of them


def of_account(uid: int) -> list[int]:
    """Processes of an account that have not ended."""
    # The kernel knows at once that there is none, as nearly always.
    try:
        os.getpriority(os.PRIO_USER, uid)
    except ProcessLookupError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        # Not the owner of its directory: of who changed accounts that is root.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and _uid((entry / "status").read_bytes()) == uid:
                found.append(int(entry.name))
    return [pid for pid in found if supervisor.start_ticks(pid) is not None]


def _uid(status: bytes) -> int:
    return int(status.partition(b"\nUid:")[2].split(maxsplit=1)[0])
