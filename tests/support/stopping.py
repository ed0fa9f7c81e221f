"""Processes that stand still."""

import os
import signal
from pathlib import Path

from tests.support.waiting import eventually


def stop(pid):
    """Stops a process, all of its threads, and returns when they are.

    A busy machine takes its time: whichever thread is to act on SIGSTOP has to run first, and the
    others go on meanwhile.
    """
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: all(state == "T" for state in states(pid)), what=f"{pid} to stand still")


def states(pid):
    """Of each thread."""
    for each in Path(f"/proc/{pid}/task").iterdir():
        yield (each / "stat").read_text().rpartition(")")[2].split()[0]
