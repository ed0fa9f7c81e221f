"""A fleet whose every way can be broken: a fault proxy before each replica, and before ZooKeeper.

Replicas announce their proxy's address, so every call to them goes through it, whoever makes it;
the processes of a host reach ZooKeeper through their host's own proxy. What a replica itself calls
goes through the callee's proxy: a host whose proxies all drop is one that nobody reaches and that
loses its ZooKeeper session, while it can still call others: the meaner half of a partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Self

from shoal.testing import Fault, FaultProxy
from shoal.testing.installed import free_port
from shoal_gateway.fleet.state import FleetState, ReplicaState


class Links:
    """The proxies of a fleet; they end with the context.

    Attributes:
        hits: For each breakage that was mended, in order, how many bytes and connections met it.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        # By replica id, and by host for the way to ZooKeeper.
        self._replicas: dict[str, FaultProxy] = {}
        self._zookeeper: dict[str, FaultProxy] = {}
        self._hosts: dict[str, list[str]] = {}
        self.hits: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def route(self, state: FleetState, replica: ReplicaState) -> ReplicaState:
        """The replica with its ways through proxies; see `Fleet.up`."""
        address = state.hosts[replica.host]
        servers, _, chroot = state.zookeeper.partition("/")
        if replica.host not in self._zookeeper:
            self._zookeeper[replica.host] = self._proxy(servers, address)
        bind = f"{address}:{free_port(address)}"
        proxy = self._replicas[replica.id] = self._proxy(bind, address)
        self._hosts.setdefault(replica.host, []).append(replica.id)
        return replace(
            replica,
            bind=bind,
            advertise=proxy.address,
            zookeeper=f"{self._zookeeper[replica.host].address}/{chroot}",
        )

    @contextmanager
    def replica(self, name: str, fault: Fault) -> Iterator[str]:
        """A fault on all ways to a replica."""
        with self._broken([self._replicas[name]], fault):
            yield f"{name}: {fault.name}"

    @contextmanager
    def host(self, name: str) -> Iterator[str]:
        """Nobody reaches a host's replicas, and they don't reach ZooKeeper."""
        ways = [self._zookeeper[name], *(self._replicas[each] for each in self._hosts[name])]
        with self._broken(ways, Fault.drop()):
            yield f"{name}: cut off"

    @contextmanager
    def from_zookeeper(self, name: str) -> Iterator[str]:
        """A host does not reach ZooKeeper; its replicas go on serving."""
        with self._broken([self._zookeeper[name]], Fault.drop()):
            yield f"{name}: cut off from ZooKeeper"

    @contextmanager
    def _broken(self, ways: Sequence[FaultProxy], fault: Fault) -> Iterator[None]:
        try:
            for way in ways:
                way.inject(fault)
            yield
        finally:
            self.hits.append(sum(way.hit for way in ways))
            for way in ways:
                way.heal()

    def _proxy(self, target: str, address: str) -> FaultProxy:
        return self._stack.enter_context(FaultProxy(target, f"{address}:0"))
