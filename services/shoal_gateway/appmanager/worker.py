"""A worker: calls Python functions for an app manager, one at a time, in a process of its own.

    python -I worker.py DESCRIPTOR DIRECTORY MANAGER [UID PROCESSES]

It reads calls as lines of JSON from the socket DESCRIPTOR and answers each with a line. Its first
line says that it is ready. Standard output and error go to files in DIRECTORY, the working
directory is DIRECTORY/work. It ends with its manager, the process MANAGER. With UID it becomes that
account first, which may have so many PROCESSES.

Only the standard library is imported here: it runs in the interpreter of its flavor.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

RESULT = "result.json"
STREAMS = ("stdout", "stderr")
# Exit code of a function that raised; Python's own for a program that did.
RAISED = 1
# Of a traceback, what is said as the reason; all of it is in the logs.
LAST_LINES = 3
MAX_REASON = 1000


class Applications:
    """Functions of applications' directories.

    What one application imported from its directory is put aside when another's turn comes, so that
    both may have a module of the same name.
    """

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], Callable[..., Any]] = {}
        self._aside: dict[str, dict[str, ModuleType]] = {}
        self._directory = ""

    def function(self, directory: str, name: str) -> Callable[..., Any]:
        """The function ``module:function``; imported the first time.

        Raises:
            ImportError: there is no such module.
            AttributeError: it has no such function.
        """
        self._switch(directory)
        found = self._functions.get((directory, name))
        if found is None:
            module, _, attribute = name.partition(":")
            found = getattr(importlib.import_module(module), attribute)
            if not callable(found):
                raise TypeError(f"{name} is no function but {type(found).__name__}")
            self._functions[(directory, name)] = found
        return found

    def _switch(self, directory: str) -> None:
        if directory == self._directory:
            return
        if self._directory:
            sys.path.remove(self._directory)
            inside = self._directory + os.sep
            mine = {
                name: module
                for name, module in sys.modules.items()
                if str(getattr(module, "__file__", None) or "").startswith(inside)
            }
            self._aside[self._directory] = mine
            for name in mine:
                del sys.modules[name]
        sys.path.insert(0, directory)
        sys.modules.update(self._aside.get(directory, {}))
        # A directory that was listed before may have got new files since.
        importlib.invalidate_caches()
        self._directory = directory


def main(descriptor: int, directory: Path, manager: int, uid: int = 0, processes: int = 0) -> int:
    """The worker; the exit code."""
    work = directory / "work"
    for target, name in enumerate(STREAMS, start=1):
        log = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o644)
        if uid:
            os.fchown(log, uid, uid)
        os.dup2(log, target)
        os.close(log)
    with contextlib.suppress(OSError):
        # Where the machine runs out of memory, a job goes before those who look after it.
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    if uid:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        os.umask(0o022)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    # After that, for the kernel forgets it where the account changes.
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # What a function starts and does not wait for comes to us, to be found.
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != manager:
        return 3  # it died before the kernel knew that we end with it
    # Managers ignore or block signals that functions may count on.
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for each in Path("/proc/self/fd").iterdir():
        if int(each.name) > 2:
            with contextlib.suppress(OSError):  # the one that listed them
                os.set_inheritable(int(each.name), False)  # noqa: FBT003 - the standard library's order
    applications = Applications()
    with socket.socket(fileno=descriptor) as link, link.makefile("rwb") as lines:
        _say(lines, {"ready": True})
        while line := lines.readline():
            _say(lines, perform(json.loads(line), applications, work))
    return 0


def perform(call: dict[str, Any], applications: Applications, work: Path) -> dict[str, Any]:
    """Makes one call; how it ended, and what it left.

    Returns:
        ``code`` and ``reason``; ``left``: whether there are files or output to fetch; ``retire``:
        whether threads, processes or anything else of it go on, so that the worker must end.
    """
    os.chdir(work)
    os.environ.update(call["environment"])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    code, reason = 0, ""
    began = time.monotonic()
    try:
        if call["memory_mib"]:
            resource.setrlimit(resource.RLIMIT_AS, (call["memory_mib"] << 20, hard))
        result = applications.function(call["application"], call["function"])(**call["parameters"])
        if call["result"]:
            (work / RESULT).write_text(json.dumps(result) + "\n", encoding="utf-8")
    except SystemExit as end:
        code, reason = _exit_code(end)
    except BaseException as error:  # noqa: BLE001 - whatever a function raises is its own end only
        code, reason = RAISED, _said(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    seconds = time.monotonic() - began
    for stream in (sys.stdout, sys.stderr):
        # A function may have closed it or put its own in place.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    return {
        "code": code,
        "reason": reason,
        "seconds": seconds,
        "left": any(os.fstat(number).st_size for number in (1, 2)) or _holds_anything(work),
        "retire": _goes_on(),
    }


def clear(directory: Path) -> None:
    """Makes a worker's directory fit for the next call; by the manager, between two calls."""
    for name in STREAMS:
        os.truncate(directory / name, 0)
    for entry in (directory / "work").iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _holds_anything(directory: Path) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is not None


def _goes_on() -> bool:
    """Whether threads or processes are left."""
    if threading.active_count() > 1:
        return True
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _exit_code(end: SystemExit) -> tuple[int, str]:
    if end.code is None:
        return 0, ""
    if isinstance(end.code, int):
        return end.code & 0xFF, ""
    return RAISED, str(end.code)[:MAX_REASON]


def _said(error: BaseException) -> str:
    # Our own frame tells users nothing.
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    lines = "".join(traceback.format_exception(type(error), error, trace))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(lines)
    last = [line.strip() for line in lines.strip().splitlines()[-LAST_LINES:]]
    return "; ".join(last).replace("\0", "")[-MAX_REASON:]


def _say(lines: Any, answer: dict[str, Any]) -> None:
    lines.write(json.dumps(answer).encode() + b"\n")
    lines.flush()


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])))
