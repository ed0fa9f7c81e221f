"""Where things of a fleet lie, and how its processes are started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shoal_gateway import runtime
from shoal_gateway.fleet.names import FLAVORS as FLAVORS
from shoal_gateway.fleet.names import SERVICES as SERVICES
from shoal_gateway.fleet.postgres import PostgresServer
from shoal_gateway.fleet.releases import Releases
from shoal_gateway.fleet.state import FleetState, ReplicaState

CHROOT = "/gateway"


def project_root() -> Path:
    """The checkout that holds examples and flavors; ``SHOAL_PROJECT`` names another.

    Raises:
        FileNotFoundError: there is none.
    """
    named = os.environ.get("SHOAL_PROJECT")
    root = Path(named) if named else Path(__file__).parents[3]
    if not (root / "examples").is_dir():
        raise FileNotFoundError(
            f"a local fleet needs a checkout of Shoal (for examples/ and build/flavors/), and "
            f"{root} is none; set SHOAL_PROJECT to one"
        )
    return root


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of a fleet.

    Attributes:
        directory: The fleet's own.
        project: The checkout.
    """

    directory: Path
    project: Path

    @property
    def catalogue(self) -> Path:
        """The applications that the api knows."""
        return self.directory / "catalogue"

    @property
    def graveyard(self) -> Path:
        """What was on hosts that were lost; nobody of the fleet opens it."""
        return self.directory / "graveyard"

    @property
    def certificates(self) -> Path:
        """The fleet's own authority and what it has issued, where there is one."""
        return self.directory / "certs"

    @property
    def releases(self) -> Releases:
        """The code of the versions that replicas were upgraded to."""
        return Releases(self.directory / "releases")

    @property
    def objects(self) -> str:
        """URL of the object store."""
        return f"file://{self.directory / 'objects'}"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data, where it is the store."""
        return self.directory / "postgres"

    def store(self, kind: str) -> str:
        """URL of the registry's store: the one thing that outlives hosts.

        Args:
            kind: "sqlite" or "postgres".

        Raises:
            PostgresError: PostgreSQL was never started here.
        """
        if kind == "postgres":
            return PostgresServer(self.postgres).url
        return f"sqlite:///{self.directory / 'store' / 'registry.db'}"

    @property
    def token(self) -> Path:
        """The token of the fleet's first administrator, where the api asks for one."""
        return self.directory / "admin.token"

    @property
    def dashboard_url(self) -> Path:
        """Where the live page is, while it is served."""
        return self.directory / "dashboard.url"

    @property
    def upgrade_log(self) -> Path:
        """What upgrades wrote that the live page's button started."""
        return self.directory / "upgrade.log"

    @property
    def zookeeper(self) -> Path:
        """ZooKeeper's data."""
        return self.directory / "zookeeper"

    def root(self, host: str) -> Path:
        """A host's own directory, which no process of another host opens."""
        return self.directory / "hosts" / host

    def log(self, replica: ReplicaState) -> Path:
        """A replica's log."""
        return self.root(replica.host) / "logs" / f"{replica.id}.log"

    def logs(self) -> list[Path]:
        """All logs, those of lost hosts too."""
        return sorted(
            [*self.directory.glob("hosts/*/logs/*.log"), *self.graveyard.glob("*/logs/*.log")]
        )

    def ledgers(self) -> list[Path]:
        """All execution ledgers, those of lost hosts too."""
        return sorted(
            [*self.directory.glob("hosts/*/ledger.jsonl"), *self.graveyard.glob("*/ledger.jsonl")]
        )

    def python(self, replica: ReplicaState) -> Path:
        """The interpreter that a replica runs in: app managers have their flavor's own.

        Raises:
            FileNotFoundError: the flavor's environment was not made.
        """
        if replica.service != "appmanager":
            return Path(sys.executable)
        python = self.project / "build" / "flavors" / replica.flavor / "bin" / "python"
        if not python.exists():
            raise FileNotFoundError(
                f"flavor {replica.flavor} has no environment: {python} is missing; run `make setup`"
            )
        return python

    def command(self, state: FleetState, replica: ReplicaState) -> list[str]:
        """The command line of a replica."""
        root = self.root(replica.host)
        address = state.hosts[replica.host]
        command = [
            str(self.python(replica)),
            "-m",
            f"shoal_gateway.{replica.service}",
            *("--zookeeper", replica.zookeeper or state.zookeeper),
            *("--id", replica.id),
            *("--host", replica.host),
            *("--bind", replica.bind or f"{address}:0"),
            *("--zone", f"zone-{replica.host.rpartition('-')[2]}"),
            *("--cache", str(root / "cache")),
        ]
        if state.certificates:
            command += ["--tls", str(Path(state.certificates) / replica.service)]
        if replica.advertise:
            command += ["--advertise", replica.advertise]
        if not replica.version:
            # A flavor's environment does not know it; a release has it written in its code.
            command += ["--version", runtime.installed_version()]
        if replica.service == "registry":
            command += ["--store", self.store(state.store)]
        elif replica.service == "scheduler":
            # An offer here takes milliseconds; what a killed scheduler held is free again soon.
            command += ["--lease", "5"]
        elif replica.service == "api":
            command += ["--objects", self.objects, "--catalogue", str(self.catalogue)]
            if state.require_signed:
                command.append("--require-signed")
            if state.users != "open":
                command += ["--users", state.users]
        elif replica.service == "appmanager":
            command += ["--flavor", replica.flavor, "--slots", str(state.slots)]
            command += ["--root", str(root), "--objects", self.objects]
        return command


def hosts(count: int) -> dict[str, str]:
    """Names and loopback addresses of hosts."""
    return {f"host-{number}": f"127.0.{number}.1" for number in range(1, count + 1)}


def replicas(count: int) -> Iterator[ReplicaState]:
    """One replica of each service, and of each flavor's app manager, on each of ``count`` hosts."""
    for number in range(1, count + 1):
        host = f"host-{number}"
        for service in SERVICES[:-1]:
            yield ReplicaState(f"{service}-{number}", service, host)
        for flavor in FLAVORS:
            yield ReplicaState(f"{flavor}-{number}", "appmanager", host, flavor)
