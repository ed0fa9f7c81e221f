"""One attempt on disk: what the manager and the supervisor tell each other, and their successors.

<root>/attempts/<flavor>/<job>.<attempt>.<runner>/
    spec.json         what to run, written before the registry is asked
    claim.json        the fence under which it was begun
    trace.json        the span that it is in its job's trace, where it has one
    supervisor.json   who supervises it
    leash             touched while a manager looks after it
    work/             the job's working directory
    stdout, stderr
    exit.json         how it ended
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from shoal_gateway import traceparents
from shoal_gateway.appmanager import supervisor
from shoal_gateway.jobtraces import NONE, JobSpan

logger = logging.getLogger(__name__)

PROGRAM = Path(supervisor.__file__)
STREAMS = ("stdout", "stderr")
# Environment variable that every process of a runner is born with.
RUNNER_MARK = "SHOAL_RUNNER_ID"


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run.

    Attributes:
        job_id: The job.
        attempt: Number of this start.
        runner_id: A UUID for this start.
        command: Arguments, placeholders of the host filled in.
        environment: The whole environment.
        outputs: Files that make the result.
        wall_seconds: Time limit; 0: none.
        memory_mib: Address space limit; 0: none.
        ledger: The host's execution ledger.
        leash_seconds: After so long without a manager the supervisor ends the job; 0: never.
        uid: Account of its own, and group; 0: its manager's.
        processes: That this account may have at once; 0: any number.
    """

    job_id: str
    attempt: int
    runner_id: str
    command: tuple[str, ...]
    environment: dict[str, str]
    outputs: tuple[str, ...]
    wall_seconds: float
    memory_mib: int
    ledger: str
    # An earlier version's spec has none.
    leash_seconds: float = 0.0
    uid: int = 0
    processes: int = 0

    @property
    def who(self) -> dict[str, object]:
        """How ledgers name it."""
        return {"job_id": self.job_id, "attempt": self.attempt, "runner_id": self.runner_id}

    def document(self) -> dict[str, Any]:
        """For ``spec.json``.

        What says nothing is left out, for an older manager may have to read it.
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if value or name not in ("uid", "processes")
        }


@dataclass(frozen=True, slots=True)
class Exit:
    """How a job ended.

    Attributes:
        exit_code: Its own, or minus the signal that killed it.
        reason: For a person; empty when there is nothing to say.
        seconds: How long it ran.
        cause: `supervisor.EXITED`, ``WALL_LIMIT``, ``KILLED`` or ``ORPHANED``.
    """

    exit_code: int
    reason: str
    seconds: float
    cause: str = supervisor.EXITED

    @property
    def says_nothing(self) -> bool:
        """Whether it was ended for reasons of its host, so that the job is not to blame."""
        return self.cause in (supervisor.KILLED, supervisor.ORPHANED)


class Attempt:
    """An attempt's directory."""

    def __init__(self, path: Path, spec: Spec) -> None:
        self.path = path
        self.spec = spec

    def __repr__(self) -> str:
        return f"<Attempt {self.spec.job_id} {self.spec.attempt} {self.spec.runner_id}>"

    @classmethod
    def create(cls, parent: Path, spec: Spec) -> Self:
        """Makes the directory and writes the spec."""
        path = parent / f"{spec.job_id}.{spec.attempt}.{spec.runner_id}"
        (path / "work").mkdir(parents=True)
        if spec.uid:
            # The account may pass through, and see nothing but what is its own.
            os.chown(path, -1, spec.uid)
            path.chmod(0o710)
            (path / "work").chmod(0o700)
            os.chown(path / "work", spec.uid, spec.uid)
        (path / supervisor.LEASH).touch()
        supervisor.write_atomically(str(path / "spec.json"), spec.document())
        return cls(path, spec)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what an earlier manager left.

        Raises:
            ValueError: it can't be read.
        """
        document = _read(path / "spec.json")
        if document is None:
            raise ValueError(f"{path} has no spec.json")
        try:
            document["command"] = tuple(document["command"])
            document["outputs"] = tuple(document["outputs"])
            return cls(path, Spec(**document))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path / 'spec.json'} has other fields: {error!r}") from error

    @property
    def work(self) -> Path:
        """The job's working directory."""
        return self.path / "work"

    @property
    def fence(self) -> int | None:
        """The fence it was begun under; None before that."""
        document = _read(self.path / "claim.json")
        return int(document["fence"]) if document is not None else None

    def claim(self, fence: int) -> None:
        """Notes the fence."""
        supervisor.write_atomically(str(self.path / "claim.json"), {"fence": fence})

    def trace(self, span: JobSpan) -> None:
        """Notes its span, which whoever sees its end will tell of."""
        supervisor.write_atomically(str(self.path / "trace.json"), span.document())

    @property
    def span(self) -> JobSpan:
        """Its span; `NONE` where it is in no trace."""
        try:
            document = _read(self.path / "trace.json")
            return JobSpan(**document) if document is not None else NONE
        except (ValueError, TypeError) as error:
            # A trace is not worth a job.
            logger.warning("%r goes on without its trace: %s", self, error)
            return NONE

    def look_after(self) -> None:
        """Tells the supervisor that a manager is there."""
        # Neither makes the file nor needs space on the disk; without it the attempt was removed.
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path / supervisor.LEASH)

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs, or when nobody could write it down."""
        document = _read(self.path / "exit.json")
        return Exit(**document) if document is not None else None

    def supervisor_pid(self) -> int | None:
        """Process id of its supervisor, if that lives."""
        document = _read(self.path / "supervisor.json")
        if document is None:
            return None
        pid = int(document["pid"])
        # The number may belong to another process by now.
        return pid if supervisor.start_ticks(pid) == document["started"] else None

    def give_up(self) -> bool:
        """Takes the place of a supervisor that has not come yet, so that a late one runs nothing.

        Returns:
            False when there is or was one.
        """
        return supervisor.write_once(self.path / supervisor.IDENTITY, {"pid": 0, "started": 0})

    def start(self, keep: int = -1) -> subprocess.Popen[bytes]:
        """Starts the supervisor, detached: it outlives this process.

        Args:
            keep: A descriptor for it to hold until its end; -1: none.
        """
        with (self.path / "supervisor.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(PROGRAM), str(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.spec.environment,
                cwd=self.path,
                pass_fds=[keep] if keep >= 0 else [],
                start_new_session=True,
            )

    def remove(self) -> None:
        """Removes the directory: everything worth keeping was uploaded."""
        # Renamed first, so that a manager that dies here does not adopt half of it.
        gone = self.path.with_name(f".{self.path.name}")
        try:
            self.path.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)


def found(parent: Path) -> list[Path]:
    """Attempts that earlier managers left.

    Cleared away are remains of removed ones, and directories whose manager died before it had
    written what to run: nothing was begun in them.
    """
    left = []
    for path in sorted(parent.iterdir()) if parent.is_dir() else []:
        if path.name.startswith(".") or not (path / "spec.json").exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            left.append(path)
    return left


def leash_of(lease: float) -> float:
    """How long a supervisor keeps a job that no manager looks after, seconds.

    Longer than its lease can be held by anybody, so that a successor within the lease finds it
    running, with time for a manager that is slow to start or a registry that stood still.
    """
    return 3.0 * lease + 15.0


def environment(
    job_id: str, attempt: int, runner_id: str, work: Path, cache: Path, trace: str = ""
) -> dict[str, str]:
    """A job's environment: little, the same everywhere, and the marks that its host is known by."""
    return {
        **({traceparents.VARIABLE: trace} if trace else {}),
        **surroundings(work, cache),
        "SHOAL_JOB_ID": job_id,
        "SHOAL_ATTEMPT": str(attempt),
        RUNNER_MARK: runner_id,
    }


def surroundings(home: Path, cache: Path) -> dict[str, str]:
    """What of that does not depend on the job."""
    inherited = ("LANG", "TZ", "SHOAL_FLEET_ID", "SHOAL_HOST", "SHOAL_TEST_RUN")
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(cache),
        # One job, one core: the slots say how many run beside each other.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **{name: os.environ[name] for name in inherited if name in os.environ},
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    if not isinstance(document, dict):
        raise TypeError(f"{path} holds no JSON object")
    return document
