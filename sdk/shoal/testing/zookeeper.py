"""A real ZooKeeper on this machine, for tests and local fleets."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

JARS = ("/usr/share/java/zookeeper.jar", "/opt/zookeeper/lib/zookeeper.jar")
CONFIGURATION = "/etc/zookeeper/conf"


def find() -> tuple[str, str]:
    """Java and ZooKeeper's class path.

    Raises:
        FileNotFoundError: one is missing; the message says what to install.
    """
    java = shutil.which("java")
    jar = os.environ.get("ZOOKEEPER_JAR") or next((j for j in JARS if Path(j).exists()), None)
    if java is None or jar is None or not Path(jar).exists():
        what = "a Java runtime" if java is None else "zookeeper.jar"
        raise FileNotFoundError(
            f"{what} was not found: sudo apt-get install zookeeper "
            "(or set ZOOKEEPER_JAR to the jar)"
        )
    return java, f"{CONFIGURATION}:{jar}"


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class ZooKeeperServer:
    """One ZooKeeper server process; data and port stay over stops and starts.

        with ZooKeeperServer() as zookeeper:
            directory = shoal.Directory(f"{zookeeper.hosts}/test")

    Args:
        data_dir: Where it keeps its data; a temporary directory, removed at the end, when None.
        port: Client port; a free one when None.
        tick: ZooKeeper's tickTime in milliseconds; sessions are 2 to 20 ticks long.
        servers: The ensemble's ``server.N=`` lines, for a member of one.
        number: Its ``myid`` in the ensemble.
        environment: Added to the process's environment.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        port: int | None = None,
        *,
        tick: int = 500,
        servers: list[str] | None = None,
        number: int = 1,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._temporary = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="shoal-zookeeper-"))
        self.port = port or free_port()
        self.pid: int | None = None
        self._tick = tick
        self._servers = servers or []
        self._number = number
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

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
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.data_dir / "zookeeper.log"

    def start(self, timeout: float = 30.0) -> None:
        """Starts the process and waits until it answers.

        Raises:
            FileNotFoundError: Java or ZooKeeper is not installed.
            TimeoutError: it did not answer in time; the message holds the end of its log.
        """
        self.spawn()
        self.wait(timeout)

    def spawn(self) -> int:
        """Starts the process, detached from this one's terminal; returns its pid."""
        java, class_path = find()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "myid").write_text(f"{self._number}\n", encoding="ascii")
        lines = [
            f"tickTime={self._tick}",
            f"dataDir={self.data_dir}",
            "clientPortAddress=127.0.0.1",
            f"clientPort={self.port}",
            "initLimit=20",
            "syncLimit=10",
            "maxClientCnxns=0",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            *self._servers,
        ]
        configuration = self.data_dir / "zoo.cfg"
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    java,
                    "-Xmx256m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-cp",
                    class_path,
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                    str(configuration),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        self.pid = self._process.pid
        return self.pid

    def wait(self, timeout: float = 30.0) -> None:
        """Waits until the server serves.

        Raises:
            TimeoutError: it did not within ``timeout`` seconds, or its process ended.
        """
        deadline = time.monotonic() + timeout
        while True:
            # "srvr" is answered with a mode only by a server that is part of a quorum.
            if "Mode:" in self.ask("srvr"):
                return
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace").splitlines()[-15:]
                state = "ended" if ended else f"did not serve within {timeout:g} s"
                raise TimeoutError(f"ZooKeeper at {self.hosts} {state}:\n" + "\n".join(tail))
            time.sleep(0.02)  # a process outside has no event to await

    def ask(self, word: str) -> str:
        """The answer to a four-letter word ("ruok", "srvr", "cons"); empty when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as connection:
                connection.sendall(word.encode())
                parts = []
                while part := connection.recv(65536):
                    parts.append(part)
                return b"".join(parts).decode(errors="replace")
        except OSError:
            return ""

    def stop(self) -> None:
        """Ends the process as an operator would (SIGTERM), and waits."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process as a power cut would (SIGKILL), and waits."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stops it, if it runs, and starts it with the same data and port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stops the process's time (SIGSTOP): it holds its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused process go on."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Removes the data of a stopped server."""
        shutil.rmtree(self.data_dir / "version-2", ignore_errors=True)

    def close(self) -> None:
        """Kills the process; removes the data if it was temporary."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None
        self.pid = None


class ZooKeeperEnsemble:
    """Several servers that elect a leader.

    Args:
        size: 3 or 5; an even number tolerates no more than the odd one below it.
        data_dir: Parent of the members' directories; temporary when None.
        environment: Added to each process's environment.
    """

    def __init__(
        self,
        size: int = 3,
        data_dir: Path | str | None = None,
        *,
        environment: dict[str, str] | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"an ensemble has at least one member, not {size!r}")
        base = Path(data_dir) if data_dir is not None else None
        lines = [f"server.{n}=127.0.0.1:{free_port()}:{free_port()}" for n in range(1, size + 1)]
        self.members = [
            ZooKeeperServer(
                base / f"server-{n}" if base is not None else None,
                servers=lines,
                number=n,
                environment=environment,
            )
            for n in range(1, size + 1)
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def hosts(self) -> str:
        """All members, comma-separated."""
        return ",".join(member.hosts for member in self.members)

    def start(self, timeout: float = 60.0) -> None:
        """Starts all members and waits for the quorum."""
        for member in self.members:
            member.spawn()
        for member in self.members:
            member.wait(timeout)

    def leader(self) -> ZooKeeperServer | None:
        """The member that leads now."""
        return next((m for m in self.members if "Mode: leader" in m.ask("srvr")), None)

    def close(self) -> None:
        """Kills all members."""
        for member in self.members:
            member.close()
