"""Supervisors as a manager sees them: started, found again, watched through a handle, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal_gateway.appmanager import supervisor

# Environment variable that every process of a runner carries.
RUNNER_MARK = "SHOAL_RUNNER_ID"

# Seconds that a guard whose supervisor died has for killing its tree, and between looks at it.
GUARD_TIME = 5.0
LOOK = 0.02


class SurvivorError(Exception):
    """Processes of a runner can't be killed."""


@dataclass(slots=True)
class Handle:
    """A supervisor's process, which the number alone would not name for good.

    Attributes:
        pid: Its process id.
        descriptor: Its pidfd: readable once it has ended; -1 when closed.
    """

    pid: int
    descriptor: int

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; nothing happens when it has ended."""
        if self.descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.descriptor, number)

    def close(self) -> None:
        """Gives the handle back, and takes note of the end of a child of ours."""
        if self.descriptor < 0:
            return
        # One that a former manager started is not our child; init takes note of its end.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED | os.WNOHANG)
        os.close(self.descriptor)
        self.descriptor = -1


def spawn(directory: Path, environment: Mapping[str, str]) -> Handle:
    """Starts the supervisor of an attempt in a session of its own.

    Raises:
        OSError: it could not be started.
    """
    with (directory / "supervisor.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
    handle = Handle(child.pid, os.pidfd_open(child.pid))
    # The handle takes note of its end; Popen must not try that, or warn that nobody did.
    child.returncode = 0
    return handle


def find(pid: int, started: int) -> Handle | None:
    """The process that was started then under this number; None when it has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # With the handle open the number can't be given away between the look and the use.
    if supervisor.start_ticks(pid) != started:
        os.close(descriptor)
        return None
    return Handle(pid, descriptor)


def end_survivors(runner_id: str, timeout: float = 30.0) -> None:
    """Waits until nothing of a runner whose supervisor died is left, and kills what stays.

    A guard kills its tree by itself, which finds also those that cleared their environment; so it
    gets its time first.

    Raises:
        SurvivorError: something outlived SIGKILL.
    """
    began = time.monotonic()
    while left := _marked(runner_id):
        waited = time.monotonic() - began
        if waited > timeout:
            raise SurvivorError(f"processes {left} of runner {runner_id} outlived SIGKILL")
        if waited > GUARD_TIME:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK)  # not our children: the kernel has no event for all of them


def _marked(runner_id: str) -> list[int]:
    mark = f"{RUNNER_MARK}={runner_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # ended meanwhile, or somebody else's
        pid = int(entry.name)
        if mark in environment.split(b"\0") and supervisor.start_ticks(pid) is not None:
            found.append(pid)
    return found
