"""What the blocking and the asyncio server have in common: who they are, and where they listen."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import grpc

from shoal import forks, observing
from shoal.addresses import bound
from shoal.connections import peers_of
from shoal.contracts import KEY, NAMES, ServedContract
from shoal.drain import Phase, Roster
from shoal.drainreport import DrainReport
from shoal.protocols import Registration
from shoal.security import server_credentials
from shoal.tls import Tls, files_of
from shoal.views import ChannelView
from shoal_balancer import Replica, Status

logger = logging.getLogger(__name__)
# Each record's message is one JSON object: the report of a drain, with the callers' names.
reports = logging.getLogger("shoal.drain.report")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server announces of itself, but for its address.

    Attributes:
        service: The service's name in the directory.
        id: The replica's name there; a UUID when it is given as None.
        version: Version of the service.
        flavor: The kind of work it does.
        zone: Where it stands.
        host: The machine, for people.
        weight: Share of traffic it asks for.
        metadata: Anything else.
    """

    service: str
    id: str
    version: str
    flavor: str
    zone: str
    host: str
    weight: float
    metadata: Mapping[str, str]

    @classmethod
    def of(
        cls, service: str, given_id: str | None, metadata: Mapping[str, str] | None, **facts: Any
    ) -> Identity:
        """The identity from a server's arguments."""
        name = str(uuid.uuid4()) if given_id is None else given_id
        return cls(service=service, id=name, metadata=dict(metadata or {}), **facts)

    def replica(
        self,
        address: str,
        port: int,
        names: Iterable[str],
        contract: ServedContract | None = None,
    ) -> Replica:
        """The replica at an address, with the proto services that it serves and their contract."""
        facts = {**self.metadata, NAMES: ",".join(sorted(names))}
        if contract is not None:
            facts[KEY] = contract.digest
        return Replica(
            id=self.id,
            address=address,
            port=port,
            version=self.version,
            flavor=self.flavor,
            zone=self.zone,
            host=self.host,
            weight=self.weight,
            metadata=MappingProxyType(facts),
        )


class Shell:
    """What both servers do alike, for nothing in it waits: they pass on to grpc's server, and note.

    Attributes:
        identity: Who the replica is.
        descriptors: Where the descriptors of its services are; protobuf's default pool when None.
        replica: What is announced; None before.
        roster: Who calls it.
    """

    _server: Any
    _registration: Registration | None
    _observer: observing.Observer | None
    roster: Roster

    def __init__(
        self,
        identity: Identity,
        *,
        contract: bool = True,
        descriptors: Any = None,
        tls: Tls | None = None,
    ) -> None:
        self.identity = identity
        self.descriptors = descriptors
        self._publishes = contract
        self._files = files_of(tls) if tls is not None else None
        self.replica: Replica | None = None
        self._names: list[str] = []
        self._ports: list[int] = []
        self._forked = False
        # Where it was announced: the channels of the process are made there, too.
        self._directory: Any = None

    def __repr__(self) -> str:
        kind = f"{type(self).__module__.removesuffix('.server')}.{type(self).__name__}"
        where = self.replica.target if self.replica is not None else "not announced"
        phase = self.roster.phase.value
        return f"<{kind} {self.identity.service} {self.identity.id} {where} {phase}>"

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        """As grpc's; generated ``add_…_to_server`` functions call it."""
        handlers = tuple(generic_rpc_handlers)
        for name in names_of(handlers):
            self._note(name)
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """As grpc's; generated ``add_…_to_server`` functions call it."""
        self._note(service_name)
        self._server.add_registered_method_handlers(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Binds a plaintext port; returns it.

        Raises:
            BindError: it could not be bound; says why.
            ShoalForkError: the server was made before this process forked.
        """
        self._check_fork()
        port = bound(address, lambda: int(self._server.add_insecure_port(address)))
        self._ports.append(port)
        return port

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Binds a TLS port; returns it.

        Raises:
            BindError: it could not be bound; says why.
            ShoalForkError: the server was made before this process forked.
        """
        self._check_fork()
        server = self._server
        port = bound(address, lambda: int(server.add_secure_port(address, server_credentials)))
        self._ports.append(port)
        return port

    def credentials(self) -> grpc.ServerCredentials | None:
        """For a TLS port with the server's own certificate, which may be replaced; None without.

        Raises:
            TlsError: the certificate is another service's.
        """
        if self._files is None:
            return None
        return server_credentials(self._files, self.identity.service)

    def peers(self) -> frozenset[str] | None:
        """All who are connected to the server's ports; None where the system does not tell."""
        found = [peers for port in self._ports if (peers := peers_of(port)) is not None]
        return frozenset().union(*found) if found else None

    def contract(self) -> ServedContract | None:
        """What it serves, as it is published; None when nothing is, or nothing can be described.

        Raises:
            ContractError: it is too large to be published.
        """
        if not self._publishes:
            return None
        made = ServedContract.of(self._names, self.descriptors)
        if made is not None:
            made.packed()
        return made

    def set_status(self, status: Status) -> None:
        """Tells callers that it is BUSY, or UP again; they spare a busy one while most are not.

        It returns at once: the directory is told soon, at most once a second, and of several
        statuses within a second the last one. After a lost session it is told again. Without effect
        once the server leaves.

        Raises:
            RuntimeError: the server is not announced yet.
            ValueError: DRAINING is not said but done: by `drain`, `stop`, or SIGTERM.
        """
        if status is Status.DRAINING:
            raise ValueError(f"{self!r} drains by drain(), stop() or SIGTERM, not by its status")
        if self._registration is None or self.replica is None:
            raise RuntimeError(f"{self!r} has no status before it is announced: call serve() first")
        if self.roster.phase is Phase.SERVING:
            self._registration.say(status)
            self.replica = replace(self.replica, status=status)

    def views(self) -> list[ChannelView]:
        """The channels of this process that were made where it is announced."""
        looks = getattr(self._directory, "views", None)
        return looks() if looks is not None else []

    def after_fork(self) -> None:
        """In a forked child: the server is the parent's."""
        self._forked = True

    def _report_drain(self, report: DrainReport) -> None:
        """One line for people and one for programs, so that nobody has to parse the first."""
        name, service = self.identity.id, self.identity.service
        logger.info("%s %s", name, report)
        reports.info("%s", report.to_json(service=service, replica=name))
        if self._observer is not None:
            self._observer.drained(self, report)

    def _observers(self, *, aio: bool) -> Sequence[Any]:
        """Interceptors of who observes this server; none, unless somebody does."""
        self._observer = observer = observing.current()
        return observer.interceptors(self, aio=aio) if observer is not None else ()

    def _note(self, name: str) -> None:
        if name not in self._names:
            self._names.append(name)

    def _check_fork(self) -> None:
        if self._forked:
            raise forks.server_error(f"the server of '{self.identity.service}'")


def names_of(handlers: Iterable[Any]) -> list[str]:
    """Names of the services behind generic handlers, as far as they tell."""
    named = (getattr(handler, "service_name", None) for handler in handlers)
    return [name() for name in named if callable(name)]
