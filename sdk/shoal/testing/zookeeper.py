"""A real ZooKeeper on this machine: started, killed, paused and restarted at will.

For tests and for local fleets. It needs a Java runtime and ZooKeeper's jar, nothing else:
configuration, data, log and pid lie in one directory, and nothing listens beyond loopback.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from shoal import zookeepertls
from shoal.testing.installed import ZooKeeperError, free_port
from shoal.testing.standalone import ZooKeeperServer
from shoal.tls import Tls

__all__ = ["ZooKeeperEnsemble", "ZooKeeperError", "ZooKeeperServer", "free_port"]


class ZooKeeperEnsemble:
    """Several servers that elect a leader.

    Args:
        size: 3 or 5; an even number tolerates no more losses than the odd one below it.
        data_dir: Parent of the members' directories; None: a temporary one.
        tick: ZooKeeper's tickTime in milliseconds.
        address: Loopback address that all listen on.
        environment: Added to each process's environment.
        tls: Their certificate, of service ``zookeeper``; they then speak TLS alone.
    """

    def __init__(
        self,
        size: int = 3,
        data_dir: Path | str | None = None,
        *,
        tick: int = 500,
        address: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
        tls: Tls | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"an ensemble has at least one member, not {size!r}")
        self._temporary = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="shoal-ensemble-")).absolute()
        self._tls = tls
        lines = self._lines(size, address)
        self.members = [
            ZooKeeperServer(
                self.data_dir / f"server-{number}",
                tick=tick,
                address=address,
                servers=lines,
                number=number,
                environment=environment,
                tls=tls,
            )
            for number in range(1, size + 1)
        ]

    def __repr__(self) -> str:
        return f"<ZooKeeperEnsemble {self.hosts} data_dir={self.data_dir}>"

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

    def __iter__(self) -> Iterator[ZooKeeperServer]:
        return iter(self.members)

    @property
    def hosts(self) -> str:
        """What a client connects to: all members, comma-separated."""
        scheme = zookeepertls.SCHEME if self._tls is not None else ""
        return scheme + ",".join(f"{each.address}:{each.port}" for each in self.members)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the members that run."""
        return tuple(pid for member in self.members if (pid := member.pid) is not None)

    def leader(self) -> ZooKeeperServer | None:
        """The member that leads now, if any."""
        return next((member for member in self.members if member.mode == "leader"), None)

    def start(self, timeout: float = 90.0) -> Self:
        """Starts the members that do not run and waits until all serve.

        Raises:
            ZooKeeperError: one did not within ``timeout`` seconds.
        """
        for member in self.members:
            if not member.running:
                member.spawn()
        for member in self.members:
            member.wait(timeout)
        return self

    def stop(self) -> None:
        """Stops all members as an operator would. Idempotent."""
        for member in self.members:
            member.stop()

    def close(self) -> None:
        """Ends all members; removes their directory if it was temporary. Idempotent."""
        for member in self.members:
            if self._temporary:
                member.kill()
            else:
                member.stop()
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def _lines(self, size: int, address: str) -> list[str]:
        # A member that is started again must find the others where they were.
        kept = self.data_dir / "members"
        if kept.exists():
            return kept.read_text(encoding="ascii").splitlines()
        lines = [
            f"server.{number}={address}:{free_port(address)}:{free_port(address)}"
            for number in range(1, size + 1)
        ]
        self.data_dir.mkdir(parents=True, exist_ok=True)
        kept.write_text("\n".join(lines) + "\n", encoding="ascii")
        return lines
