"""Accounts of their own for jobs, where the manager is root: what one owns no other can read.

A uid is lent to one attempt (or worker) at a time on this machine, whichever manager runs it: it is
held by a lock on a file that the attempt's supervisor inherits, so that it is held for as long as
any process may run under it, also when managers come and go.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shoal_gateway.appmanager import supervisor, survivors

logger = logging.getLogger(__name__)

# Between what systemd gives to containers and the largest uid: nobody has accounts there.
DEFAULT_UIDS = range(2_000_000_000, 2_000_010_000)
LOCKS = Path("/run/shoal/uids")
# Processes and threads of one job, where it has an account of its own.
PROCESSES = 512

# What jobs may enter of a host's directory, not list; and what they may read.
_ENTERED = ("attempts", "pool")
_READ = ("apps",)

WHY_SHARED = (
    "jobs run as this manager's account, and each can read what it and the others have (%s);"
    " see docs/users.md"
)


class ApartError(Exception):
    """Jobs can't have accounts of their own here; says why."""


@dataclass(slots=True)
class Lent:
    """A uid for one attempt.

    Attributes:
        uid: Also its group.
        descriptor: Holds it; to be inherited by whom it is for.
    """

    uid: int
    descriptor: int

    def close(self) -> None:
        """Lets go of it; it is free when those who inherited it have ended."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Accounts:
    """Lends uids.

    Args:
        uids: Which.
        processes: That one job may have at once.
        locks: Directory of the locks, the same for all managers of a machine.
        first: Draws where to begin to look, of so many.
    """

    def __init__(
        self,
        uids: range = DEFAULT_UIDS,
        *,
        processes: int = PROCESSES,
        locks: Path = LOCKS,
        first: Callable[[int], int] = random.randrange,
    ) -> None:
        self.uids = uids
        self.processes = processes
        self._locks = locks
        self._first = first

    def open(self) -> None:
        """Makes the place for the locks.

        Raises:
            ApartError: it can't be made.
        """
        try:
            self._locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ApartError(f"no locks can be kept in {self._locks}: {error}") from error

    def lend(self) -> Lent:
        """A uid that nobody has.

        Raises:
            OSError: all are lent, or the locks can't be used.
        """
        begin = self._first(len(self.uids))
        for at in itertools.chain(range(begin, len(self.uids)), range(begin)):
            uid = self.uids[at]
            descriptor = os.open(
                self._locks / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Where all who held it were killed, something of the job may live on.
                if not survivors.of_account(uid):
                    return Lent(uid, descriptor)
            except BlockingIOError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise OSError(f"all {len(self.uids)} accounts for jobs are in use")


def parse(text: str) -> range | None:
    """Uids as an operator names them: ``200000-265535``; None for ``manager``.

    Raises:
        ValueError: they can't be read, or are such that other accounts have.
    """
    if text == "manager":
        return None
    low, dash, high = text.partition("-")
    if not (dash and low.isdigit() and high.isdigit()):
        raise ValueError(f"{text!r} is not like 200000-265535, and neither 'auto' nor 'manager'")
    if not 1000 <= int(low) <= int(high) < 2**32 - 1:
        raise ValueError(f"{text}: from 1000 upwards, and the smaller one first")
    return range(int(low), int(high) + 1)


def accounts_for(wanted: str, root: Path, python: str, processes: int) -> Accounts | None:
    """The accounts for a manager's jobs; None where they run as itself, which is said in the log.

    Args:
        wanted: "auto", "manager", or a range of uids.
        root: The host's own directory, closed here to all but what jobs need.
        python: The flavor's interpreter, which they must be able to run.
        processes: That one job may have at once.

    Raises:
        ApartError: a range was named and can't be used.
        ValueError: it can't be read.
    """
    uids = DEFAULT_UIDS if wanted == "auto" else parse(wanted)
    if uids is None:
        logger.warning(WHY_SHARED, "so it was told")
        return None
    try:
        made = Accounts(uids, processes=processes)
        _make_sure(made, root, python)
    except ApartError as error:
        if wanted != "auto":
            raise
        logger.warning(WHY_SHARED, error)
        return None
    logger.info("each job has an account of its own, of uids %s to %s", uids[0], uids[-1])
    return made


@contextlib.contextmanager
def closed_to_others(root: Path) -> Iterator[None]:
    """Lets others enter what jobs must reach below a host's directory, and read little of it.

    Where the block fails, all is as open as it was. Managers of a root do so one after the other.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name in _ENTERED:
        (root / name).mkdir(exist_ok=True)
    lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    before: dict[Path, int] = {}
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entered = [root, *(root / name for name in _ENTERED)]
        for path in (*entered, *root.iterdir()):
            if path in before or (
                path not in entered and (path.name in _READ or path.is_symlink())
            ):
                continue
            with contextlib.suppress(FileNotFoundError):  # a manager of another flavor moved it
                before[path] = stat.S_IMODE(path.stat().st_mode)
                path.chmod(0o711 if path in entered else 0o700 if path.is_dir() else 0o600)
        yield
    except BaseException:
        for path, mode in before.items():
            with contextlib.suppress(FileNotFoundError):
                path.chmod(mode)
        raise
    finally:
        os.close(lock)


def give(directory: Path, uid: int) -> None:
    """Makes a directory and all in it an account's. No job of that account may run yet."""
    os.chown(directory, uid, uid, follow_symlinks=False)
    for above, directories, files in os.walk(directory):
        for name in (*directories, *files):
            os.chown(Path(above) / name, uid, uid, follow_symlinks=False)


def own_cache(template: Path, target: Path, uid: int) -> None:
    """A cache of an account's own, with what all of them would make first, where that is there."""
    if template.is_dir():
        shutil.copytree(template, target, symlinks=True)
    else:
        target.mkdir()
    give(target, uid)


# Arguments: where the supervisor's program lies, a uid, and a command to execute as that.
_BECOME = """
import os, sys
sys.path.insert(0, sys.argv[1])
from supervisor import confine
confine(int(sys.argv[2]), 0)
os.execv(sys.argv[3], sys.argv[3:])
"""


def _make_sure(accounts: Accounts, root: Path, python: str) -> None:
    """Tries what a job does first: to become somebody, and to reach its place and its programs."""
    if os.geteuid() != 0:
        raise ApartError(f"this manager is not root but uid {os.geteuid()}")
    accounts.open()
    with closed_to_others(root):
        _try(accounts, root, python)


def _try(accounts: Accounts, root: Path, python: str) -> None:
    apps = str(root / "apps")
    probe = (
        f"import os; os.chdir({str(root / 'attempts')!r});"
        f" os.path.isdir({apps!r}) and os.listdir({apps!r})"
    )
    try:
        lent = accounts.lend()
    except OSError as error:
        raise ApartError(str(error)) from error
    try:
        # By a program of its own: a fork of a process with grpc in it is no good place to begin.
        # And by the very steps of a job: setpriv executes with root's rights what it can't reach.
        tried = subprocess.run(
            [
                *(sys.executable, "-I", "-S", "-c", _BECOME),
                *(str(Path(supervisor.__file__).parent), str(lent.uid)),
                *(python, "-I", "-S", "-c", probe),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            timeout=60.0,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ApartError(f"it can't be tried: {error}") from error
    finally:
        lent.close()
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        raise ApartError(f"uid {lent.uid} can't run {python} in {root}: {last}")
