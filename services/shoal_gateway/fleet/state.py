"""What a fleet consists of, in a file that every command of it reads and writes."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from shoal_gateway.fleet.processes import Identity

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica of the fleet.

    Attributes:
        id: Its name, in the directory too: ``registry-1``.
        service: Whose replica it is.
        host: The host it runs on: ``host-1``.
        flavor: For app managers, the kind of jobs.
        process: Its process, as last started.
        version: Of the release that it runs; empty: the code that started the fleet.
        bind: Where it listens; empty: any port of its host's address.
        advertise: What it announces instead of where it listens; empty: nothing else.
        zookeeper: Address with chroot by which it reaches ZooKeeper; empty: the fleet's.
    """

    id: str
    service: str
    host: str
    flavor: str = ""
    process: Identity | None = None
    version: str = ""
    bind: str = ""
    advertise: str = ""
    zookeeper: str = ""


@dataclass(frozen=True, slots=True)
class FleetState:
    """A whole fleet.

    Attributes:
        id: Marks its processes.
        zookeeper: Address with chroot, for callers.
        ensemble: How many ZooKeeper servers.
        slots: Jobs at once of each app manager.
        store: What the registry keeps jobs in: "sqlite" or "postgres".
        require_signed: Whether the api refuses unsigned jobs.
        users: Whether the api asks callers for tokens: "open" or "required".
        certificates: Directory of `shoal certs` whose certificates all have; empty: plain text.
        dashboard: The process of the live page, as last started; None: there is to be none.
        hosts: Loopback address of each host.
        replicas: By id.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    zookeeper: str = ""
    ensemble: int = 1
    slots: int = 2
    store: str = "sqlite"
    require_signed: bool = False
    users: str = "open"
    certificates: str = ""
    dashboard: Identity | None = None
    hosts: dict[str, str] = field(default_factory=dict)
    replicas: dict[str, ReplicaState] = field(default_factory=dict)

    def with_replica(self, changed: ReplicaState) -> FleetState:
        """The fleet with one replica changed or added."""
        return replace(self, replicas={**self.replicas, changed.id: changed})

    def without_replica(self, name: str) -> FleetState:
        """The fleet with one replica less."""
        rest = {key: value for key, value in self.replicas.items() if key != name}
        return replace(self, replicas=rest)

    def on_host(self, host: str) -> list[ReplicaState]:
        """The replicas of a host."""
        return [each for each in self.replicas.values() if each.host == host]


class StateFile:
    """The fleet's file: replaced atomically, changed under a lock.

    Args:
        directory: The fleet's directory.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "fleet.json"
        self._lock = directory / "fleet.lock"

    def read(self) -> FleetState | None:
        """The fleet; None when there is none.

        Raises:
            ValueError: the file is there and can't be read.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return _parse(text)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path} can't be used ({error}); move it away to start anew"
            ) from error

    def write(self, state: FleetState) -> None:
        """Replaces the file."""
        text = json.dumps({"format": FORMAT, **asdict(state)}, indent=2)
        fresh = self.path.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(self.path)

    def remove(self) -> None:
        """The fleet is no more."""
        self.path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other commands from changing the fleet meanwhile."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _parse(text: str) -> FleetState:
    document = json.loads(text)
    if document.pop("format", None) != FORMAT:
        raise ValueError("it is of another version of Shoal")
    replicas = {key: _replica(value) for key, value in document.pop("replicas").items()}
    page = document.pop("dashboard", None)
    dashboard = Identity(**page) if page else None
    return FleetState(**document, dashboard=dashboard, replicas=replicas)


def _replica(document: dict[str, Any]) -> ReplicaState:
    process = document.pop("process")
    return ReplicaState(**document, process=Identity(**process) if process else None)
