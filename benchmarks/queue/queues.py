"""Three ways to keep jobs in line: each puts one at the end and has the first one done."""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from kazoo.client import KazooClient
from kazoo.recipe.queue import LockingQueue

from shoal_gateway.registry.claims import Report, Start
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.rules import Ending
from shoal_gateway.registry.store import Store
from shoal_gateway.registry.submission import Creation
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

REGISTRY = "registry, SQLite"
LOCKING = "ZooKeeper, kazoo's LockingQueue"
DELETING = "ZooKeeper, list and delete"

# Jobs written at once while a queue is filled.
BATCH = 1000
LEASE = 600.0
FLAVOR = "local"
SPEC = job_pb2.JobSpec(
    application="noop@1", flavor=FLAVOR, function="functions:noop", max_attempts=3
)
# In struct tcp_info: tcpi_bytes_acked, tcpi_bytes_received (Linux 4.1 and later).
_TCP_BYTES_AT, _TCP_BYTES = 120, struct.Struct("QQ")


class Line(Protocol):
    """Jobs that wait."""

    def fill(self, jobs: int) -> None:
        """Has so many wait."""

    def turn(self) -> None:
        """Puts one at the end, takes the first and says that it is done: as many wait as before."""

    def moved(self) -> int:
        """Bytes that this has moved until now: over the connection, or from and to the file."""


class Sql(Line):
    """The registry's queue, without the call: what its servicer asks of its logic and store."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._store = Store(f"sqlite:///{directory}/registry.db")
        self._registry = Registry(self._store)

    def close(self) -> None:
        """Closes the store."""
        self._store.close()

    def fill(self, jobs: int) -> None:
        """See `Line`."""
        for some in _batches(jobs):
            self._put(some)

    def turn(self) -> None:
        """See `Line`."""
        self._put(1)
        (offer,) = self._registry.lease("bench", 1, LEASE, [FLAVOR])
        runner = str(uuid.uuid4())
        start = Start(offer.job_id, offer.fence, offer.attempt, runner, "bench", "bench")
        (fence,) = self._registry.begin_many([start], LEASE)
        if isinstance(fence, str):
            raise TypeError(f"a job could not be begun: {fence}")
        ending = Ending(
            registry_pb2.ReportRequest.OUTCOME_SUCCEEDED,
            runner,
            exit_code=0,
            manifest=job_pb2.Manifest(attempt=offer.attempt, runner_id=runner),
        )
        (item,) = self._registry.report([Report(offer.job_id, fence, ending)])
        if not item.accepted:
            raise RuntimeError("a job could not be brought to its end")

    def moved(self) -> int:
        """See `Line`."""
        # The client of ZooKeeper in this process is not in it: a socket's recv is no read.
        counts = dict(
            line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines()
        )
        return int(counts["rchar"]) + int(counts["wchar"])

    def _put(self, jobs: int) -> None:
        made = self._registry.create_many(
            [Creation("bench", str(uuid.uuid4()), SPEC, "noop") for _ in range(jobs)]
        )
        if not all(each.created for each in made):
            raise RuntimeError("a key that was made now was known")


class Locking(Line):
    """kazoo's: a taken job is locked by an ephemeral node, and deleted when it is done."""

    def __init__(self, client: KazooClient, path: str) -> None:
        self._client = client
        self._queue = LockingQueue(client, path)
        self._entries = f"{path}/entries"

    def fill(self, jobs: int) -> None:
        """See `Line`."""
        self._client.ensure_path(self._entries)
        for some in _batches(jobs):
            creating = [
                self._client.create_async(
                    f"{self._entries}/entry-100-", SPEC.SerializeToString(), sequence=True
                )
                for _ in range(some)
            ]
            for each in creating:
                each.get()

    def turn(self) -> None:
        """See `Line`."""
        self._queue.put(SPEC.SerializeToString())
        if self._queue.get(60.0) is None or not self._queue.consume():
            raise RuntimeError("the first job could not be taken")

    def moved(self) -> int:
        """See `Line`."""
        return _bytes_of(self._client)


class Deleting(Line):
    """The least that there is: a job is taken by deleting it, and lost when its taker dies.

    It takes from the line that a `Locking` has filled.
    """

    def __init__(self, client: KazooClient, path: str) -> None:
        self._client = client
        self._entries = f"{path}/entries"

    def fill(self, jobs: int) -> None:
        """The other one does it."""

    def turn(self) -> None:
        """See `Line`."""
        self._client.create(f"{self._entries}/entry-100-", SPEC.SerializeToString(), sequence=True)
        # Nobody else takes here, so it is there.
        first = f"{self._entries}/{min(self._client.get_children(self._entries))}"
        self._client.get(first)
        self._client.delete(first)

    def moved(self) -> int:
        """See `Line`."""
        return _bytes_of(self._client)


def _bytes_of(client: KazooClient) -> int:
    connection: socket.socket = client._connection._socket  # noqa: SLF001 - it counts nothing itself
    told = connection.getsockopt(
        socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_BYTES_AT + _TCP_BYTES.size
    )
    return sum(_TCP_BYTES.unpack_from(told, _TCP_BYTES_AT))


def _batches(jobs: int) -> Iterator[int]:
    for at in range(0, jobs, BATCH):
        yield min(BATCH, jobs - at)
