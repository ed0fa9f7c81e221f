"""One real ZooKeeper server on this machine, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from kazoo.client import KazooClient

from shoal import zookeepertls
from shoal.testing import zookeeperserver
from shoal.testing.installed import (
    ZooKeeperError,
    find_classpath,
    find_java,
    free_port,
    poll,
)
from shoal.tls import Tls


class ZooKeeperServer:
    """One ZooKeeper server process; data and port stay over stops and starts.

        with ZooKeeperServer() as zookeeper:
            directory = shoal.Directory(f"{zookeeper.hosts}/test")

    The process is detached from the terminal and outlives the Python process that started it
    unless it is stopped; an object made for the same directory later finds it by its pid file.

    Args:
        data_dir: Where it keeps configuration, data, log and pid; made if absent. None: a
            temporary directory, removed by `close`.
        port: Client port; None: a free one, or the one it had before in this directory.
        tick: ZooKeeper's tickTime in milliseconds; sessions are 2 to 20 ticks long.
        address: Loopback address to listen on.
        servers: The ensemble's ``server.N=`` lines, for a member of one.
        number: Its ``myid`` in the ensemble.
        environment: Added to the process's environment.
        tls: Its certificate, of service ``zookeeper``. It then speaks TLS alone, with whoever shows
            a certificate, and users of ``operator``'s may do everything.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        port: int | None = None,
        *,
        tick: int = 500,
        address: str = "127.0.0.1",
        servers: Sequence[str] = (),
        number: int = 1,
        environment: Mapping[str, str] | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._temporary = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="shoal-zookeeper-")).absolute()
        self.address = address
        self.port = port or self._configured_port() or free_port(address)
        self._tick = tick
        self._servers = tuple(servers)
        self._number = number
        self._environment = dict(environment or {})
        self._tls = tls
        self._child: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"pid={self.pid}" if self.running else "stopped"
        return f"<ZooKeeperServer {self.hosts} {state} data_dir={self.data_dir}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def hosts(self) -> str:
        """What a client connects to: ``127.0.0.1:21811``, with ``tls://`` where it speaks TLS."""
        scheme = zookeepertls.SCHEME if self._tls is not None else ""
        return f"{scheme}{self.address}:{self.port}"

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.data_dir / "zookeeper.log"

    @property
    def pid(self) -> int | None:
        """Its process id, or None while it does not run."""
        if self._child is not None:
            return None if self._child.poll() is not None else self._child.pid
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # The number may have gone to another process since.
        return pid if os.fsencode(self._configuration) in command.split(b"\0") else None

    @property
    def running(self) -> bool:
        """Whether the process exists (a paused one does)."""
        return self.pid is not None

    @property
    def mode(self) -> str:
        """``standalone``, ``leader``, ``follower``, or an empty string while it serves nobody."""
        lines = self.ask("srvr").splitlines()
        return next((line.split(":")[1].strip() for line in lines if line.startswith("Mode:")), "")

    def start(self, timeout: float = 60.0) -> Self:
        """Starts the process if it does not run, and waits until it serves.

        Raises:
            ZooKeeperError: Java or ZooKeeper is not installed, or it did not serve within
                ``timeout`` seconds; the message holds the end of its log.
        """
        if not self.running:
            self.spawn()
        self.wait(timeout)
        return self

    def spawn(self) -> int:
        """Starts the process without waiting for it to serve; returns its pid.

        Raises:
            ZooKeeperError: Java or ZooKeeper is not installed.
        """
        java, classpath = find_java(), find_classpath()
        self._configure()
        command = [
            java,
            "-Xmx256m",
            # A short life on a small machine: quick to start, one GC thread, no shared files.
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
            # Killing the process loses nothing that the kernel has; only a power failure would.
            "-Dzookeeper.forceSync=no",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss,SSS",
            "-Dorg.slf4j.simpleLogger.showThreadName=false",
            *(zookeeperserver.properties(self._tls) if self._tls is not None else ()),
            "-cp",
            classpath,
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(self._configuration),
        ]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        self._pid_file.write_text(f"{self._child.pid}\n", encoding="ascii")
        return self._child.pid

    def wait(self, timeout: float = 60.0) -> None:
        """Waits until the server serves; as a member of an ensemble, until it has a quorum.

        Raises:
            ZooKeeperError: it did not within ``timeout`` seconds, or its process ended; the
                message holds the end of its log.
        """

        def serves_or_ended() -> bool:
            return not self.running or bool(self.mode)

        served = poll(serves_or_ended, timeout) and self.running
        if not served:
            state = f"did not serve within {timeout:g} s" if self.running else "ended"
            raise ZooKeeperError(f"{self!r} {state}; its log ends with\n{self._log_end()}")

    def ask(self, word: str, timeout: float = 2.0) -> str:
        """The answer to a four-letter word ("ruok", "srvr", "cons"); empty when nobody answers."""
        where = (self.address, self.port)
        try:
            with self._dial(where, timeout) as connection:
                connection.sendall(word.encode("ascii"))
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return ""
        return answer.decode("utf-8", "replace")

    def _dial(self, where: tuple[str, int], timeout: float) -> socket.socket:
        connection = socket.create_connection(where, timeout=timeout)
        if self._tls is None:
            return connection
        return zookeeperserver.wrapped(connection, self._tls)

    def stop(self, timeout: float = 20.0) -> None:
        """Ends it as an operator would (SIGTERM), with SIGKILL after ``timeout`` seconds."""
        if not self._end(signal.SIGTERM, timeout):
            self.kill()

    def kill(self, timeout: float = 20.0) -> None:
        """Ends it as a power cut would (SIGKILL), and waits; its data and port stay.

        Raises:
            ZooKeeperError: the process was still there after ``timeout`` seconds.
        """
        if not self._end(signal.SIGKILL, timeout):
            raise ZooKeeperError(f"{self!r} outlived SIGKILL for {timeout:g} s")

    def restart(self, timeout: float = 60.0) -> Self:
        """Kills it, if it runs, and starts it with the same data and port.

        Sessions survive this: the new process waits for them from its own start.
        """
        self.kill()
        return self.start(timeout)

    def pause(self) -> None:
        """Stops the process's time (SIGSTOP): it holds its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused process go on."""
        self._signal(signal.SIGCONT)

    def expire_session(self, client_id: tuple[int, bytes], timeout: float = 20.0) -> None:
        """Makes the server end a session, as if its client had been silent for too long.

        Its ephemeral nodes are gone when this returns; its owner loses the connection and learns
        at the next one that the session has expired.

        Args:
            client_id: Session id and password: kazoo's ``client.client_id``.
            timeout: Seconds for the connection that this takes.
        """
        # Whoever knows the password may take a session over, and a client that closes ends it.
        thief = KazooClient(
            hosts=f"{self.address}:{self.port}",
            client_id=client_id,
            **({**zookeepertls.settings(self._tls), "check_hostname": False} if self._tls else {}),
        )
        thief.start(timeout=timeout)
        thief.stop()
        thief.close()

    def wipe(self) -> None:
        """Removes the data of a stopped server: at its next start it knows no node, no session."""
        shutil.rmtree(self.data_dir / "data", ignore_errors=True)

    def close(self) -> None:
        """Ends the process; removes the directory if it was temporary. Idempotent."""
        if self._temporary:
            self.kill()
            shutil.rmtree(self.data_dir, ignore_errors=True)
        else:
            self.stop()

    @property
    def _configuration(self) -> Path:
        return self.data_dir / "zoo.cfg"

    @property
    def _pid_file(self) -> Path:
        return self.data_dir / "zookeeper.pid"

    def _configured_port(self) -> int | None:
        try:
            lines = self._configuration.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None
        found = dict(line.split("=", 1) for line in lines)
        return int(found.get("clientPort") or found["secureClientPort"])

    def _configure(self) -> None:
        data = self.data_dir / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "myid").write_text(f"{self._number}\n", encoding="ascii")
        lines = [
            f"tickTime={self._tick}",
            f"dataDir={data}",
            *self._port_lines(),
            "initLimit=20",
            "syncLimit=10",
            # All clients share one address here; the default of 60 would turn some away.
            "maxClientCnxns=0",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            *self._servers,
        ]
        self._configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _port_lines(self) -> list[str]:
        if self._tls is None:
            return [f"clientPortAddress={self.address}", f"clientPort={self.port}"]
        lines = zookeeperserver.lines(self._tls, self.data_dir)
        return [f"secureClientPortAddress={self.address}", f"secureClientPort={self.port}", *lines]

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is None:
            raise ZooKeeperError(f"{self!r} does not run, so it can't be sent {number.name}")
        os.kill(pid, number)

    def _end(self, number: signal.Signals, timeout: float) -> bool:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
                os.kill(pid, number)
                # A paused process takes note of SIGTERM only when it goes on.
                os.kill(pid, signal.SIGCONT)
            if not poll(lambda: not self.running, timeout):
                return False
        self._pid_file.unlink(missing_ok=True)
        return True

    def _log_end(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(lines[-20:])
