"""Processes that outlive the command that started them, and how to end the right ones.

A process id is only a number and comes back. So a process is known by its id and its start time,
and a whole host's processes by marks in their environment that every child inherits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shoal_gateway.fleet import accounts

FLEET_MARK = "SHOAL_FLEET_ID"
HOST_MARK = "SHOAL_HOST"


@dataclass(frozen=True, slots=True)
class Identity:
    """A process, not merely its number.

    Attributes:
        pid: Its process id.
        started: Its start time in ticks since boot, field 22 of ``/proc/PID/stat``.
    """

    pid: int
    started: int


def identify(pid: int) -> Identity | None:
    """The process that has this number now; None when there is none, or only its zombie."""
    fields = _stat(pid)
    if not fields or fields[0] in ("Z", "X"):
        return None
    return Identity(pid, int(fields[19]))


def paused(process: Identity) -> bool:
    """Whether it is stopped (SIGSTOP)."""
    fields = _stat(process.pid)
    return bool(fields) and fields[0] == "T" and identify(process.pid) == process


def children(process: Identity) -> list[Identity]:
    """The processes that it forked and that have not ended; not their own children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields and int(fields[1]) == process.pid:
                found.append(identify(int(entry.name)))
    return [each for each in found if each is not None]


def alive(process: Identity) -> bool:
    """Whether it still runs (or is paused)."""
    _reap(process.pid)
    return identify(process.pid) == process


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    account: str | None = None,
    cwd: Path | None = None,
) -> Identity:
    """Starts a process in a session of its own, its output appended to ``log``.

    Args:
        command: What to run.
        log: For its output; opened by us, so that it need not be the account's.
        environment: Added to ours.
        account: Whom it runs as; None: whoever we are.
        cwd: The directory it runs in; None: ours.

    Raises:
        OSError: it could not be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            accounts.as_account(account, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=cwd,
            start_new_session=True,
        )
    # It outlives us on purpose; Popen must not warn about that when it is collected.
    child.returncode = 0
    started = identify(child.pid)
    if started is None:
        raise OSError(f"{command[0]} ended at once; see {log}")
    return started


def send(process: Identity, number: signal.Signals) -> bool:
    """Sends a signal to exactly that process; False when it has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # With the handle open the number can't be given away between the look and the signal.
        if identify(process.pid) != process:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def marked(marks: Mapping[str, str]) -> Iterator[Identity]:
    """Processes that carry all the marks in their environment, this one left out."""
    wanted = {f"{key}={value}".encode() for key, value in marks.items()}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = set((entry / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue  # ended meanwhile, or somebody else's
        if wanted <= environment:
            process = identify(int(entry.name))
            if process is not None:
                yield process


def wait_gone(processes: Iterable[Identity], timeout: float) -> list[Identity]:
    """Waits until the processes have ended; returns those that have not within ``timeout``."""
    deadline = time.monotonic() + timeout
    remaining = [process for process in processes if alive(process)]
    while remaining and time.monotonic() < deadline:
        time.sleep(0.02)  # not our children: the kernel has no event for all of them
        remaining = [process for process in remaining if alive(process)]
    return remaining


def kill_marked(marks: Mapping[str, str], timeout: float = 30.0) -> int:
    """Kills every process with the marks, as a power cut would; returns how many there were.

    First all are stopped, so that none can start another while they are being killed.

    Raises:
        TimeoutError: some were still there after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    stopped: set[Identity] = set()
    while fresh := set(marked(marks)) - stopped:
        for process in fresh:
            send(process, signal.SIGSTOP)
        stopped |= fresh
    killed = set(stopped)
    while found := set(marked(marks)):
        killed |= found
        for process in found:
            send(process, signal.SIGKILL)
        left = wait_gone(found, max(0.0, deadline - time.monotonic()))
        if left:
            raise TimeoutError(f"processes outlived SIGKILL: {sorted(p.pid for p in left)}")
    return len(killed)


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on; empty when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # The command in parentheses may hold anything, so count from its end.
    return stat.rpartition(")")[2].split()


def _reap(pid: int) -> None:
    """Takes note of the end of a child of ours, so that it does not stay a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # not our child: started by an earlier command
