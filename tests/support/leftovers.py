"""Ends what a run of tests leaves running, also when it is killed:  python leftovers.py PID RUN."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "SHOAL_TEST_RUN"
# Seconds in which what is about to end has ended.
GRACE = 1.0


def processes_of(run: str) -> Iterator[tuple[int, str]]:
    """Processes that carry a run's mark in their environment, this one left out."""
    needle = f"{MARK}={run}".encode()
    for proc in Path("/proc").iterdir():
        if not proc.name.isdigit() or int(proc.name) == os.getpid():
            continue
        try:
            if needle in (proc / "environ").read_bytes().split(b"\0"):
                command = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                # A zombie has no command line; it waits for its parent and runs nothing.
                if command:
                    yield int(proc.name), command
        except OSError:
            # It ended while we looked, or belongs to somebody else.
            continue


def left(run: str) -> list[tuple[int, str]]:
    """Those that do not end by themselves."""
    until = time.monotonic() + GRACE
    while (found := sorted(processes_of(run))) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def watch(run: str) -> None:
    """Starts a process that waits for the end of this one, and then ends the run's others."""
    # Not marked, and deaf to a Ctrl-C that is for the tests.
    environment = {key: value for key, value in os.environ.items() if key != MARK}
    command = [sys.executable, "-S", "-E", __file__, str(os.getpid()), run]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    # It outlives us on purpose; Popen must not warn about that when it is collected.
    process.returncode = 0


def main(pid: int, run: str) -> None:
    # No such process: it was quick.
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(pid)], [], [])
    # A parent may have started another meanwhile.
    until = time.monotonic() + 10 * GRACE
    while (found := list(processes_of(run))) and time.monotonic() < until:
        for each, _ in found:
            with contextlib.suppress(OSError):
                os.kill(each, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
