"""Replicas as a directory tells of them: facts, without any caller's experience."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NO_METADATA: Mapping[str, str] = MappingProxyType({})


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
        version: Version of the service that it runs.
        flavor: The kind of work that it does, where replicas of one service differ.
        zone: Where it stands, for locality.
        host: The machine it runs on, for people.
        weight: Share of traffic it asks for, relative to 1.0.
        status: What it says of itself.
        enabled: False when an operator or its own drain took it out of rotation.
        registered_at: When it was announced, in seconds since 1970.
        metadata: Whatever else it announced.
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

    @property
    def target(self) -> str:
        """The address as grpc wants it: ``10.0.0.5:50051``, ``[::1]:50051``."""
        if ":" in self.address:
            return f"[{self.address}]:{self.port}"
        return f"{self.address}:{self.port}"

    @property
    def identity(self) -> tuple[str, str]:
        """What makes it the same replica: the same id on another port has started anew."""
        return (self.id, self.target)

    @property
    def routable(self) -> bool:
        """Whether new calls may go to it."""
        return self.enabled and self.status is not Status.DRAINING


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """All replicas of a service at one moment, sorted by id."""

    service: str
    replicas: tuple[Replica, ...] = ()
