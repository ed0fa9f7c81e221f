"""A worker's process as its manager holds it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal_gateway.appmanager import supervisor, survivors, worker
from shoal_gateway.appmanager.apart import Accounts, own_cache
from shoal_gateway.appmanager.calls import Call

logger = logging.getLogger(__name__)

PROGRAM = Path(worker.__file__)
# Bytes of answers read at once; an answer is some hundred long.
CHUNK = 1 << 16
# Bytes of a line, at most: a reason, each character of it as six.
LONGEST = 1 << 14
# For a call's parameters, so that sending one never waits for its worker.
SEND_BUFFER = 1 << 19


@dataclass(frozen=True, slots=True)
class Said:
    """What a worker said: how its call ended, or, without a code, that it is ready.

    Attributes:
        code: The call's exit code.
        reason: For a person.
        left: Whether there are files or output to fetch.
        retire: Whether anything of the call goes on in it.
    """

    code: int | None = None
    reason: str = ""
    left: bool = True
    retire: bool = True


def heard(line: bytes) -> Said:
    """A worker's line.

    Raises:
        ValueError: no worker says that.
    """
    try:
        match json.loads(line):
            case {"ready": True}:
                return Said()
            case {
                "code": int(code),
                "reason": str(reason),
                "left": bool(left),
                "retire": bool(retire),
            } if 0 <= code <= 255:
                # Names of files, which may be any bytes, get into errors.
                plain = reason.encode(errors="backslashreplace").decode().replace("\0", "")
                return Said(code, plain[: worker.MAX_REASON], left, retire)
    except RecursionError as error:
        raise ValueError("brackets in brackets") from error
    raise ValueError(f"{line[:80]!r} is no answer")


class Worker:
    """One process, its socket and its directory. Used by one thread.

    The process ends with the thread that made it, and so with the manager.

    Args:
        python: The flavor's interpreter.
        directory: Its own; made anew.
        environment: The whole environment.
        accounts: Where it gets one of its own; None: it is its manager's.
        cache: What its own begins as, where it has an account.

    Attributes:
        call: What it is busy with, until that is seen to; None while it is idle.
        ready: Whether it has said so.
        doomed: Why it was killed here; empty when it was not.
        end: A descriptor that is readable when it has ended.
    """

    def __init__(
        self,
        python: str,
        directory: Path,
        environment: Mapping[str, str],
        accounts: Accounts | None = None,
        cache: Path | None = None,
    ) -> None:
        self.directory = directory
        self._lent = lent = accounts.lend() if accounts is not None else None
        self.call: Call | None = None
        self.ready = False
        self.doomed = ""
        self._heard = bytearray()
        try:
            self._start(python, environment, accounts, cache)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            if lent is not None:
                lent.close()
            raise

    def __repr__(self) -> str:
        return f"<Worker {self.pid} {self.call!r}>"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def uid(self) -> int:
        """Its account; 0: its manager's."""
        return 0 if self._lent is None else self._lent.uid

    def fileno(self) -> int:
        """Readable when it has said something; -1 when it is buried."""
        return self._link.fileno()

    def send(self, message: bytes) -> None:
        """Hands it a call; that it has ended is found out otherwise."""
        with contextlib.suppress(OSError):
            self._link.sendall(message)

    def hear(self) -> tuple[list[Said], bool]:
        """What it has said since, and whether it can say no more.

        A function has its worker's socket at hand. What no worker says is the end of it.
        """
        try:
            chunk = self._link.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return [], False
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return [], True
        self._heard += chunk
        *lines, rest = self._heard.split(b"\n")
        self._heard = bytearray(rest)
        if len(rest) > LONGEST:
            lines.append(rest)
        try:
            return [heard(bytes(line)) for line in lines], False
        except ValueError as error:
            logger.warning("%r said what no worker says: %s", self, error)
            return [], True

    def kill(self, why: str) -> None:
        """Kills it and all below it; its socket ends."""
        self.doomed = self.doomed or why
        if self._process.returncode is None:
            below = supervisor.descendants(self.pid)
            self._process.kill()
            supervisor.send(below, signal.SIGKILL)

    def bury(self) -> int:
        """Waits for its end and lets go of what it had; the exit code, or minus the signal."""
        self._link.close()
        os.close(self.end)
        # Whoever closed the socket and lives on is of no use any more.
        self._process.kill()
        code = self._process.wait()
        # What it had started in its own session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._lent is not None:
            # And whatever else has its account, which will be another's.
            survivors.end_all(self._lent.uid)
            self._lent.close()
        return code

    def last_words(self) -> str:
        """What it wrote before it was ready: why it could not start."""
        with contextlib.suppress(OSError):
            text = (self.directory / "worker.log").read_text(encoding="utf-8", errors="replace")
            return text.strip()[-worker.MAX_REASON :]
        return ""

    def _start(
        self,
        python: str,
        environment: Mapping[str, str],
        accounts: Accounts | None,
        cache: Path | None,
    ) -> None:
        directory, lent = self.directory, self._lent
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "work").mkdir(parents=True)
        own: list[str] = []
        if lent is not None and accounts is not None:
            os.chown(directory, -1, lent.uid)
            directory.chmod(0o710)
            (directory / "work").chmod(0o700)
            os.chown(directory / "work", lent.uid, lent.uid)
            if cache is not None:
                own_cache(cache, directory / "cache", lent.uid)
            environment = {**environment, "XDG_CACHE_HOME": str(directory / "cache")}
            own = [str(lent.uid), str(accounts.processes)]
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            with (directory / "worker.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        *(python, "-I", str(PROGRAM)),
                        *(str(theirs.fileno()), str(directory), str(os.getpid())),
                        *own,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**environment, "HOME": str(directory / "work")},
                    cwd=directory,
                    # The account is held for as long as the worker lives.
                    pass_fds=[theirs.fileno(), *([lent.descriptor] if lent else [])],
                    start_new_session=True,
                )
            undo.callback(self._process.wait)
            undo.callback(self._process.kill)
            self.end = os.pidfd_open(self.pid)
            self._link = ours
            undo.pop_all()
