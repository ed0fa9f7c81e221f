"""Replicas as a directory tells of them: facts, without any caller's experience."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NO_METADATA: Mapping[str, str] = MappingProxyType({})

# What makes two reports tell of one replica: its id and its target.
Identity = tuple[str, str]


class Status(enum.StrEnum):
    """What a replica says of itself."""

    UP = "UP"
    BUSY = "BUSY"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True)
class Replica:
    """One announced server of a service.

    Attributes:
        id: Its name in the directory, unique within the service.
        address: Host name or IP address that callers connect to.
        port: TCP port.
        ssl_port: TCP port that speaks TLS; None where none does. The same as ``port`` where there
            is no other.
        version: Version of the service that it runs.
        flavor: The kind of work that it does, where replicas of one service differ.
        zone: Where it stands, for locality.
        host: The machine it runs on, for people.
        weight: Share of traffic it asks for, relative to 1.0. Announced for policies that look at
            it; the ones of this package treat all replicas alike.
        status: What it says of itself. One that is BUSY is spared while most others are not; if
            most are, all are called alike, or the rest would get everything.
        enabled: False when an operator or its own drain took it out of rotation.
        registered_at: When it was announced, in seconds since 1970.
        metadata: Whatever else it announced; a read-only copy of what was given.
    """

    id: str
    address: str
    port: int
    version: str = ""
    flavor: str = ""
    zone: str = ""
    host: str = ""
    weight: float = 1.0
    status: Status = Status.UP
    enabled: bool = True
    registered_at: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA, hash=False)
    ssl_port: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.metadata, MappingProxyType):
            object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    @property
    def target(self) -> str:
        """The address as grpc wants it: ``10.0.0.5:50051``, ``[::1]:50051``."""
        if ":" in self.address:
            return f"[{self.address}]:{self.port}"
        return f"{self.address}:{self.port}"

    @property
    def identity(self) -> Identity:
        """What makes it the same replica: the same id on another port has started anew."""
        return (self.id, self.target)

    @property
    def routable(self) -> bool:
        """Whether new calls may go to it."""
        return self.enabled and self.status is not Status.DRAINING


def ordered(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """Sorted by identity, and each identity once; of several reports the last one counts.

    An order that does not depend on how the directory listed them makes two observations of one
    set equal, and a snapshot comparable.
    """
    by_identity = {replica.identity: replica for replica in replicas}
    return tuple(by_identity[identity] for identity in sorted(by_identity))


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """All replicas of a service at one moment; `Balancer.update` takes it as it is.

    Attributes:
        service: The service's name.
        replicas: Its replicas, sorted by id, each identity once, however they were given.
    """

    service: str
    replicas: tuple[Replica, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "replicas", ordered(self.replicas))

    def __iter__(self) -> Iterator[Replica]:
        return iter(self.replicas)

    def __len__(self) -> int:
        return len(self.replicas)

    @property
    def routable(self) -> tuple[Replica, ...]:
        """Those that new calls may go to."""
        return tuple(replica for replica in self.replicas if replica.routable)
