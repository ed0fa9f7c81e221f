"""A directory without ZooKeeper, for users' own tests and for fixed lists of servers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from shoal.channels import ChannelOwner
from shoal.contracts import ServedContract
from shoal.tls import Tls
from shoal.watching import SetWatch
from shoal_balancer import Replica, Status


class FixedDirectory(ChannelOwner):
    """Services and their replicas as the test says.

        directory = FixedDirectory({"registry": ["127.0.0.1:50051"]})
        with directory.channel("registry") as channel: ...

    Servers can announce themselves in it as in the real one, when they run in the same process.

    Args:
        services: For each service its replicas, as ``host:port`` or as `Replica`.
        tls: Certificate and trusted authorities of its channels; what stands as ``host:port`` is a
            TLS port then. None for plaintext.
    """

    def __init__(
        self,
        services: Mapping[str, Iterable[str | Replica]] | None = None,
        *,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(tls)
        self.caller_id = str(uuid.uuid4())
        self._watches: dict[str, SetWatch] = {}
        self._contracts: dict[str, ServedContract] = {}
        self._unanswered: dict[str, list[Callable[[str, ServedContract | str], object]]] = {}
        for service, replicas in (services or {}).items():
            self.set(service, replicas)

    def __repr__(self) -> str:
        return f"FixedDirectory({sorted(self._watches)})"

    def set(self, service: str, replicas: Iterable[str | Replica]) -> None:
        """Replaces a service's whole set; channels hear of it before this returns.

        Args:
            service: The service's name.
            replicas: Addresses (``127.0.0.1:50051``), or replicas with all that they announce.
        """
        secure = self.tls is not None
        self.watch(service).publish(_replica(each, secure=secure) for each in replicas)

    def watch(self, service: str) -> SetWatch:
        """The one watch of a service."""
        watch = self._watches.get(service)
        if watch is None:
            watch = self._watches[service] = SetWatch(service, f"fixed:/services/{service}")
            # Nothing more will be learned by waiting.
            watch.publish(())
        return watch

    def announce(
        self,
        service: str,
        replica: Replica,
        *,
        timeout: float = 15.0,  # noqa: ARG002 - a fixed directory answers at once
        secure: bool = False,
        contract: ServedContract | None = None,
    ) -> FixedRegistration:
        """Adds a replica to a service's set."""
        if contract is not None:
            self.publish_contract(contract)
        if secure and replica.ssl_port is None:
            replica = replace(replica, ssl_port=replica.port)
        return FixedRegistration(self, service, replica)

    def publish_contract(self, contract: ServedContract) -> None:
        """Publishes what a replica serves; its metadata names it by the digest."""
        self._contracts[contract.digest] = contract
        for reader in self._unanswered.pop(contract.digest, ()):
            reader(contract.digest, contract)

    def ask_contract(
        self, digest: str, reader: Callable[[str, ServedContract | str], object]
    ) -> None:
        """Calls ``reader`` at once; again when a contract that is not there is published."""
        found = self._contracts.get(digest)
        if found is None:
            self._unanswered.setdefault(digest, []).append(reader)
        reader(digest, found or f"the contract {digest} was not published")


class FixedRegistration:
    """An announcement in a `FixedDirectory`."""

    def __init__(self, directory: FixedDirectory, service: str, replica: Replica) -> None:
        self._directory = directory
        self._service = service
        self.replica = replica
        self._write(replica)

    def update(self, *, status: Status | None = None, enabled: bool | None = None) -> None:
        """Changes the announcement."""
        changes: dict[str, Any] = {}
        if status is not None:
            changes["status"] = status
        if enabled is not None:
            changes["enabled"] = enabled
        self.replica = replace(self.replica, **changes)
        self._write(self.replica)

    def say(self, status: Status) -> None:
        """Changes the status, at once. Without effect once it drains."""
        if self.replica.status is not Status.DRAINING:
            self.update(status=status)

    def withdraw(self) -> None:
        """Takes the replica out of the set."""
        self._write(None)

    def _write(self, replica: Replica | None) -> None:
        others = [
            other
            for other in self._directory.watch(self._service).replicas()
            if other.id != self.replica.id
        ]
        self._directory.set(self._service, [*others, replica] if replica else others)


def _replica(given: str | Replica, *, secure: bool) -> Replica:
    if isinstance(given, Replica):
        return given
    address, _, port = given.rpartition(":")
    if not address or not port.isdigit():
        raise ValueError(f"a replica is given as 'host:port' or as a Replica, not {given!r}")
    ssl_port = int(port) if secure else None
    return Replica(id=given, address=address.strip("[]"), port=int(port), ssl_port=ssl_port)
