"""One real PostgreSQL server on this machine: the registry's store of a fleet with several hosts.

PostgreSQL refuses to run as root, so for root it runs as another account. It is known by its
directory alone: a later command stops or kills what an earlier one started.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from shoal.testing.installed import free_port, poll
from shoal_gateway.fleet import accounts, processes
from shoal_gateway.fleet.pginstalled import PostgresError, find_account, find_programs
from shoal_gateway.fleet.processes import Identity

__all__ = ["DATABASE", "USER", "PostgresError", "PostgresServer"]

USER = "shoal"
DATABASE = "shoal"

_SETTINGS = {
    # A commit that was acknowledged survives the loss of the machine.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # No socket in a directory that all share, no segments in /dev/shm that a kill leaves behind.
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "64MB",
    "max_connections": "100",
    # What a killed client leaves open holds locks; the kernel tells within seconds, not hours.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresServer:
    """One PostgreSQL server; data and port stay over stops, kills and starts.

        with PostgresServer(directory) as postgres:
            store = Store(postgres.url)

    The server outlives the Python process that started it unless it is stopped; an object made
    later for the same directory finds it.

    Commits are durable: ``fsync`` and ``synchronous_commit`` are on. It listens on ``host`` alone
    and asks for a password, which lies beside the data, readable by the owner only; `url` names
    that file and so may stand on a command line.

    Args:
        directory: Where it keeps data, log, password and the number of its process; made if absent.
            When this process is root, and the account that the server runs as can't reach the
            directory, the data lies in the temporary directory and ``data`` is a link to it.
        host: Loopback address to listen on.
        environment: Added to the process's environment.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.host = host
        self._environment = dict(environment or {})

    def __repr__(self) -> str:
        process = self.process
        state = "stopped" if process is None else f"pid={process.pid}"
        return f"<PostgresServer {state} directory={self.directory}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.directory / "postgres.log"

    @property
    def data(self) -> Path:
        """The server's data, or a link to it."""
        return self.directory / "data"

    @property
    def port(self) -> int:
        """The port that it listens on, now and after every restart.

        Raises:
            PostgresError: it was never started in this directory.
        """
        port = self._record().get("port")
        if port is None:
            raise PostgresError(f"no PostgreSQL was ever started in {self.directory}")
        return port

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the fleet's database, with psycopg 3 as the driver.

        Raises:
            PostgresError: it was never started in this directory.
        """
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """SQLAlchemy URL of another database in this server, which need not exist yet."""
        return (
            f"postgresql+psycopg://{USER}@{self.host}:{self.port}/{database}"
            f"?passfile={self._password_file}"
        )

    @property
    def process(self) -> Identity | None:
        """The server's first process, of which all others are children; None when it has ended."""
        record = self._record()
        if "pid" not in record:
            return None
        found = Identity(record["pid"], record["started"])
        return found if processes.alive(found) else None

    @property
    def running(self) -> bool:
        """Whether the process exists (a paused one does)."""
        return self.process is not None

    @property
    def ready(self) -> bool:
        """Whether it accepts connections: after a kill it first recovers."""
        process = self.process
        return process is not None and self._says() == (str(process.pid), "ready")

    def start(self, timeout: float = 60.0) -> Self:
        """Starts the server if it does not run, and waits until it accepts connections.

        After a kill it first recovers what had been committed.

        Raises:
            PostgresError: it is not installed, or did not come up within ``timeout`` seconds; the
                message holds the end of its log.
        """
        if not self.running:
            self.spawn()
        if not poll(lambda: self.ready or not self.running, timeout) or not self.ready:
            state = f"was not ready within {timeout:g} s" if self.running else "ended"
            raise PostgresError(f"{self!r} {state}; its log ends with\n{self._log_end()}")
        return self

    def spawn(self) -> Identity:
        """Starts the server without waiting until it is ready; makes its data if there is none.

        Raises:
            PostgresError: it is not installed, or its data could not be made.
        """
        programs = find_programs()
        self.directory.mkdir(parents=True, exist_ok=True)
        account = find_account()
        if not self.data.exists():
            self._initialise(programs, account)
        port = self._record().get("port") or free_port(self.host)
        settings = {**_SETTINGS, "listen_addresses": self.host, "port": str(port)}
        command = [str(programs / "postgres"), "-D", str(self.data.resolve())]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        # The port first: whoever finds a half-started server must not think that it has none.
        self._write_record({"port": port})
        try:
            process = processes.spawn(
                command,
                log=self.log,
                environment={**self._environment, **_locale()},
                account=account,
                # Ours may be closed to that account.
                cwd=Path("/"),
            )
        except OSError as error:
            raise PostgresError(f"PostgreSQL could not be started: {error}") from error
        self._write_record({"port": port, "pid": process.pid, "started": process.started})
        return process

    def stop(self, timeout: float = 30.0) -> None:
        """Ends it as an operator would: open transactions are undone, clients disconnected.

        After ``timeout`` seconds it is killed.
        """
        process = self.process
        if process is None:
            return
        for child in self._family(process):
            # What is paused can't leave.
            processes.send(child, signal.SIGCONT)
        processes.send(process, signal.SIGINT)
        if processes.wait_gone([process], timeout):
            self.kill()

    def kill(self, timeout: float = 30.0) -> None:
        """Ends it and all that it forked as a power cut would (SIGKILL); its data stays.

        Raises:
            PostgresError: a process was still there after ``timeout`` seconds.
        """
        process = self.process
        if process is None:
            return
        # Stopped, it forks no more; then the family is complete.
        processes.send(process, signal.SIGSTOP)
        _await_stopped(process, timeout)
        family = self._family(process)
        # The children first: without their parent they would be nobody's, and look for a way out.
        for each in reversed(family):
            processes.send(each, signal.SIGKILL)
        left = processes.wait_gone(family, timeout)
        if left:
            pids = ", ".join(str(each.pid) for each in left)
            raise PostgresError(f"processes {pids} of {self!r} outlived SIGKILL for {timeout:g} s")

    def restart(self, timeout: float = 60.0) -> Self:
        """Kills it, if it runs, and starts it with the same data and port."""
        self.kill()
        return self.start(timeout)

    def pause(self) -> None:
        """Stops its time (SIGSTOP): it holds its connections and answers nothing.

        Raises:
            PostgresError: it does not run.
        """
        for each in self._family(self._alive()):
            processes.send(each, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused server go on.

        Raises:
            PostgresError: it does not run.
        """
        for each in self._family(self._alive()):
            processes.send(each, signal.SIGCONT)

    def remove(self) -> None:
        """Kills it and removes its directory and its data, wherever they lie."""
        self.kill()
        if self.data.is_symlink():
            shutil.rmtree(self.data.resolve().parent, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _password_file(self) -> Path:
        return self.directory / "pgpass"

    def _alive(self) -> Identity:
        process = self.process
        if process is None:
            raise PostgresError(f"{self!r} does not run")
        return process

    def _record(self) -> dict[str, int]:
        try:
            text = (self.directory / "server.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        found: dict[str, int] = json.loads(text)
        return found

    def _write_record(self, record: Mapping[str, int]) -> None:
        path = self.directory / "server.json"
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(json.dumps(record) + "\n", encoding="utf-8")
        fresh.replace(path)

    def _says(self) -> tuple[str, str]:
        """The server's own note: its process id and its state."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return "", ""
        # Line 8 is the state; the note grows line by line while it starts.
        return (lines[0].strip(), lines[7].strip()) if len(lines) > 7 else ("", "")

    def _family(self, process: Identity) -> list[Identity]:
        """The server's first process and its children; PostgreSQL has no grandchildren."""
        return [process, *processes.children(process)]

    def _initialise(self, programs: Path, account: str | None) -> None:
        """Makes the data: whole or, when it is interrupted, not at all."""
        password = secrets.token_urlsafe(24)
        home = self._home(account)
        fresh = home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        accounts.give(fresh, account)
        secret = home / "password.new"
        secret.touch(mode=0o600)
        secret.write_text(password, encoding="ascii")
        accounts.give(secret, account)
        arguments = ["--username", USER, "--auth", "scram-sha-256", "--locale", "C"]
        arguments += ["--encoding", "UTF8", "--data-checksums", "--pwfile", str(secret)]
        try:
            self._run([str(programs / "initdb"), "-D", str(fresh), *arguments], account)
        finally:
            secret.unlink()
        single = [str(programs / "postgres"), "--single", "-D", str(fresh), "postgres"]
        self._run(single, account, f"CREATE DATABASE {DATABASE}\n")
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(f"*:*:*:{USER}:{password}\n", encoding="ascii")
        final = fresh.rename(home / "data")
        if home != self.directory:
            self.data.unlink(missing_ok=True)  # a link whose target has been cleaned away
            self.data.symlink_to(final)

    def _home(self, account: str | None) -> Path:
        """Where the data can lie: in our directory if the account can get there."""
        if accounts.reaches(account, self.directory):
            return self.directory
        home = Path(tempfile.mkdtemp(prefix="shoal-postgres-"))
        accounts.give(home, account)
        return home

    def _run(self, command: Sequence[str], account: str | None, text: str = "") -> None:
        done = subprocess.run(
            accounts.as_account(account, command),
            input=text,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**os.environ, **_locale()},
            check=False,
        )
        if done.returncode != 0:
            raise PostgresError(
                f"`{command[0]}` could not make the data in {self.directory}:\n{done.stdout}"
            )

    def _log_end(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(lines[-20:])


def _locale() -> dict[str, str]:
    # Its messages in English, and no complaint about a locale that is not installed.
    return {"LC_ALL": "C", "LANGUAGE": "C"}


def _await_stopped(process: Identity, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while processes.alive(process) and not processes.paused(process):
        if time.monotonic() > deadline:
            raise PostgresError(f"process {process.pid} could not be stopped for {timeout:g} s")
        time.sleep(0.005)  # no event tells of it: it is not our child
