"""Runs one job and lets nothing of it survive: ``python -I -S supervisor.py ATTEMPT_DIRECTORY``.

Two processes. The supervisor is what managers know: they watch it, and tell it with SIGTERM to end
the job. Its child, the guard, starts the job, keeps the limits and writes down how it ended. The
guard is a subreaper, so that whatever the job starts, however it detaches itself, stays below the
guard and is killed when the job ends. When the supervisor dies the kernel tells the guard, which
then kills everything; when the guard dies the job dies too, and the supervisor kills the rest.

Only the standard library, and nothing of ours: a job's supervisor is as small as Python can be, and
goes on as it is while the manager and the code around it are replaced. That is why it is one file,
however long.

A manager that looks after the attempt touches ``leash`` as often as it renews the lease. When
nobody has for the leash's length, the job is ended: its lease ran out long ago and somebody else
has it, so that it would only burn a host where no manager comes back.

Files in the attempt's directory: ``spec.json`` (read), ``supervisor.json`` (who runs it, written
once), ``leash`` (looked at), ``exit.json`` (how it ended, written last and complete), ``stdout``
and ``stderr``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

SPEC = "spec.json"
IDENTITY = "supervisor.json"
EXIT = "exit.json"
LEASH = "leash"
STDOUT = "stdout"
STDERR = "stderr"

# Why a job ended.
EXITED = "exited"
WALL_LIMIT = "wall limit"
KILLED = "killed"
SUPERVISOR_LOST = "supervisor lost"
ORPHANED = "orphaned"

# What the guard waits for. The kernel sends SIGHUP when the supervisor has died.
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)
_CAUSES = {signal.SIGTERM: KILLED, signal.SIGHUP: SUPERVISOR_LOST}

# Looks at the leash in its length.
_LEASH_LOOKS = 8

# Seconds between looks at a tree that is being killed; each end wakes earlier.
_LOOK = 0.05


def start_ticks(pid: int) -> int | None:
    """A process's start time in ticks since boot; None when it has ended.

    With the process id it names a process for good; the id alone is given away again.
    """
    stat = _stat(pid)
    return None if stat is None or stat[0] in ("Z", "X") else int(stat[19])


def write_once(path: Path, content: dict[str, Any]) -> bool:
    """Writes a JSON file unless it exists; whoever comes first has written it, complete."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    _write_durable(aside, content)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    _sync_directory(path.parent)
    return True


def write_atomically(path: str, content: dict[str, Any]) -> None:
    """Writes a JSON file so that readers see all of it or what was there before."""
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.{time.monotonic_ns()}")
    _write_durable(aside, content)
    aside.replace(target)
    _sync_directory(target.parent)


def main(directory: Path) -> int:
    """The supervisor; the exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for awaited in _SIGNALS:
        # Who ignores SIGCHLD, as a manager may have inherited, never learns how its children ended.
        signal.signal(awaited, signal.SIG_DFL)
    for each in Path("/proc/self/fd").iterdir():
        # The lock on the job's account is ours to hold and not the job's.
        if int(each.name) > 2:
            with contextlib.suppress(OSError):  # the one that listed them
                os.set_inheritable(int(each.name), False)  # noqa: FBT003 - the standard library's order
    spec = json.loads((directory / SPEC).read_text(encoding="utf-8"))
    identity = {"pid": os.getpid(), "started": start_ticks(os.getpid())}
    if not write_once(directory / IDENTITY, identity):
        # A manager found the attempt without a supervisor and gave it up before we got here.
        return 3
    # Should the guard be killed, what it looked after comes to us.
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.getpid()
    guard = os.fork()
    if guard == 0:
        code = 1
        try:
            _guard(directory, spec, supervisor)
            code = 0
        except BaseException:  # noqa: BLE001 - shown, and the process ends
            # A forked process must not return into its parent's code, whatever happens.
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    while True:
        number = signal.sigwait(_SIGNALS)
        if number == signal.SIGTERM:
            with contextlib.suppress(ProcessLookupError):
                os.kill(guard, signal.SIGTERM)
        elif number == signal.SIGCHLD and guard in _reap():
            _kill_tree()
            _close(directory, spec)
            return 0 if (directory / EXIT).exists() else 1


def _guard(directory: Path, spec: dict[str, Any], supervisor: int) -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != supervisor:
        return  # it died before the kernel knew that we want to hear of it
    began = time.monotonic()
    wall = float(spec["wall_seconds"])
    job, error = _start(directory, spec)
    # A manager of an earlier version may have written no leash.
    leash = Leash(directory / LEASH, float(spec.get("leash_seconds", 0.0)), began)
    cause, code = _wait(job, began + wall if wall > 0.0 else None, leash)
    _kill_tree()
    _close(directory, spec)
    seconds = time.monotonic() - began
    reasons = {
        WALL_LIMIT: f"ran longer than its limit of {wall:g} s",
        KILLED: "ended on request",
        ORPHANED: f"no manager looked after it for {leash.seconds:g} s",
    }
    reason = error or reasons.get(cause, "")
    if cause == EXITED and code and not reason:
        reason = memory_reason(directory, spec, code)
    write_ledger(spec, {"event": "end", "pid": job, "exit_code": code, "cause": cause})
    if cause != SUPERVISOR_LOST:
        end = {"exit_code": code, "cause": cause, "reason": reason, "seconds": seconds}
        write_atomically(str(directory / EXIT), end)


def _close(directory: Path, spec: dict[str, Any]) -> None:
    """Its account will be another job's, which must not get in here."""
    # The manager may have removed it.
    with contextlib.suppress(FileNotFoundError):
        if spec.get("uid"):
            os.chown(directory, os.geteuid(), os.getegid())
            directory.chmod(0o700)


def _start(directory: Path, spec: dict[str, Any]) -> tuple[int, str]:
    """Starts the job's process; its id, and why its command could not be executed."""
    gate, opener = os.pipe()
    errors, reporter = os.pipe()  # closed by a successful exec
    job = os.fork()
    if job == 0:
        os.close(opener)
        os.close(errors)
        _become(directory, spec, gate, reporter)
    os.close(gate)
    os.close(reporter)
    # Written down before it runs: no execution without its line.
    write_ledger(spec, {"event": "start", "pid": job})
    with contextlib.suppress(BrokenPipeError):  # it was killed already
        os.write(opener, b"!")
    os.close(opener)
    with os.fdopen(errors, "rb") as stream:
        return job, stream.read().decode(errors="replace")


def _become(directory: Path, spec: dict[str, Any], gate: int, reporter: int) -> NoReturn:
    """In the child: becomes the job."""
    try:
        os.setpgid(0, 0)
        uid = int(spec.get("uid", 0))
        for name, target, flags in (
            (os.devnull, 0, os.O_RDONLY),
            (str(directory / STDOUT), 1, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            (str(directory / STDERR), 2, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        ):
            descriptor = os.open(name, flags, 0o644)
            if uid and target:
                os.fchown(descriptor, uid, uid)  # programs open /dev/stderr anew
            os.dup2(descriptor, target)
        os.chdir(directory / "work")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if spec["memory_mib"]:
            limit = int(spec["memory_mib"]) << 20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        confine(uid, int(spec.get("processes", 0)))
        # After that, for the kernel forgets it where the account changes.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if not os.read(gate, 1):
            os._exit(127)  # the guard died and nobody would look after us
        # What Python ignores for itself, or the manager's shell for it, the job would ignore too.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(spec["command"][0], spec["command"], spec["environment"])  # noqa: S606 - its work
    except BaseException as error:  # noqa: BLE001 - reported to the guard, and nothing goes on here
        # Users are told so, whom the host's paths do not concern.
        said = getattr(error, "strerror", None) or error
        os.write(reporter, f"{Path(spec['command'][0]).name} can't be run: {said}".encode())
    finally:
        os._exit(127)


def confine(uid: int, processes: int) -> None:
    """Becomes an account that has nothing, for good; where there is none, stays who it is.

    Args:
        uid: Also the group; 0: nobody else.
        processes: That the account may have; 0: any number. Without an account of its own a job
            would be counted with its manager's other processes, so there it says nothing.
    """
    with contextlib.suppress(OSError):
        # Where the machine runs out of memory, a job goes before those who look after it.
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    if uid:
        if processes:
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        os.umask(0o022)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # No program that it runs gives it more than it has.
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


# What programs say when the system gives them no more memory.
_NO_MEMORY = (
    b"MemoryError",
    b"bad_alloc",
    b"Cannot allocate memory",
    b"OutOfMemory",
    b"out of memory",
)


def memory_reason(directory: Path, spec: dict[str, Any], code: int) -> str:
    """Why a job failed, if it looks like its limit on memory; else empty."""
    limit = int(spec["memory_mib"])
    if not limit:
        return ""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    try:
        descriptor = os.open(directory / STDERR, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            file.seek(max(0, os.fstat(descriptor).st_size - 4096))
            said = file.read(4096)
    except OSError:
        said = b""
    if peak < 0.75 * limit and not any(each in said for each in _NO_MEMORY):
        return ""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}; it seems to have reached its memory limit of {limit} MiB (it held {peak} MiB)"


class Leash:
    """How long nobody has looked after the job.

    Only time between two of our own looks counts, and of that no more than was meant to pass: where
    the whole host stood still, its manager is given the time to come first.

    Args:
        path: The file that managers touch.
        seconds: That may pass without a touch; 0: any number.
        now: Monotonic seconds.
    """

    def __init__(self, path: Path, seconds: float, now: float) -> None:
        self.seconds = seconds
        self._path = path
        self._every = seconds / _LEASH_LOOKS
        self._touched = self._mark()
        self._looked = now
        self._alone = 0.0

    def next_look(self) -> float | None:
        """When to look again, monotonic seconds; None: never."""
        return self._looked + self._every if self.seconds > 0.0 else None

    def ran_out(self, now: float) -> bool:
        """Looks, if it is time; whether nobody has looked after the job for too long."""
        due = self.next_look()
        if due is None or now < due:
            return False
        touched = self._mark()
        if touched != self._touched:
            self._touched, self._alone = touched, 0.0
        else:
            self._alone += min(now - self._looked, 2.0 * self._every)
        self._looked = now
        return self._alone >= self.seconds

    def _mark(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return None  # as if nobody came: without its directory nobody ever will


def _wait(job: int, deadline: float | None, leash: Leash) -> tuple[str, int]:
    """Waits until the job has ended or must end; why, and the exit code (minus a signal)."""
    while True:
        times = [each for each in (deadline, leash.next_look()) if each is not None]
        if not times:
            number = signal.sigwait(_SIGNALS)
        else:
            found = signal.sigtimedwait(_SIGNALS, max(0.0, min(times) - time.monotonic()))
            # After a stop (SIGSTOP, SIGCONT) that was longer than the wait, CPython returns memory
            # that nobody wrote instead of None (seen with 3.11).
            if found is None or found.si_signo not in _SIGNALS:
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    return WALL_LIMIT, -signal.SIGKILL
                if leash.ran_out(now):
                    return ORPHANED, -signal.SIGKILL
                continue
            number = signal.Signals(found.si_signo)
        if number in _CAUSES:
            return _CAUSES[signal.Signals(number)], -signal.SIGKILL
        ended = _reap()
        if job in ended:
            return EXITED, ended[job]


def _reap() -> dict[int, int]:
    """Exit codes of the children that have ended."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def _kill_tree() -> None:
    """Kills all descendants and waits for their end."""
    while _has_children():
        stopped: set[int] = set()
        # First all are stopped, so that none can start another while they are being killed.
        while fresh := set(descendants(os.getpid())) - stopped:
            send(fresh, signal.SIGSTOP)
            stopped |= fresh
        send(stopped, signal.SIGKILL)
        # Those whose parents died come to us, for we are their subreaper.
        signal.sigtimedwait([signal.SIGCHLD], _LOOK)


def _has_children() -> bool:
    _reap()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def descendants(root: int) -> list[int]:
    """Children of a process, their children, and so on; parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        stat = _stat(int(entry.name)) if entry.name.isdigit() else None
        if stat is not None and stat[0] not in ("Z", "X"):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Sends a signal to those that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _stat(pid: int) -> list[str] | None:
    """Fields of ``/proc/PID/stat`` from the state (its third) on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command in parentheses may hold anything.
    return text.rpartition(")")[2].split()


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def write_ledger(spec: dict[str, Any], entry: dict[str, Any]) -> None:
    """Appends a line to the host's ledger; one write, so that lines of others stay whole.

    Args:
        spec: The attempt's, as in ``spec.json``.
        entry: ``event`` ("start", "end" by the guard; "published" by the manager) and what belongs
            to it.
    """
    who = {name: spec[name] for name in ("job_id", "attempt", "runner_id")}
    line = json.dumps({**who, **entry, "at": time.time()}) + "\n"
    descriptor = os.open(spec["ledger"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_durable(path: Path, content: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
