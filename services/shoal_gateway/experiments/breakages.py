"""Ways to break a fleet; each is made whole again when its context ends."""

from __future__ import annotations

import json
import logging
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from shoal.directory import Directory
from shoal_gateway.fleet import Fleet, processes
from shoal_gateway.fleet.layout import Layout
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc

logger = logging.getLogger(__name__)

# How often a host is lost until a job was lost with it, and how long a busy one is looked for.
TRIES = 3
LOOK = 20.0


def interrupted(place: Layout) -> bool:
    """Whether a lost host's ledger has a start without an end: an attempt that was lost."""
    for path in place.graveyard.glob("*/ledger.jsonl"):
        runners: dict[str, set[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            runners.setdefault(entry["event"], set()).add(entry["runner_id"])
        if runners.get("start", set()) - runners.get("end", set()):
            return True
    return False


def jobs_running(target: str) -> int:
    """What an app manager runs now; 0 when it does not answer."""
    # This one replica, so not through a channel that would pick another.
    with grpc.insecure_channel(target) as channel:
        stub = appmanager_pb2_grpc.AppManagerStub(channel)
        try:
            status = stub.Status(appmanager_pb2.StatusRequest(), timeout=2.0)
        except grpc.RpcError as error:
            logger.info("%s does not answer: %s", target, error)
            return 0
    return len(status.running)


class Breaker:
    """Breaks things of a fleet.

    Args:
        fleet: Whose.
        directory: To ask app managers what they run.
        rng: Chooses victims.

    Attributes:
        replicas: Ids of replicas that were killed.
        hosts: Hosts that were lost.
    """

    def __init__(self, fleet: Fleet, directory: Directory, rng: random.Random) -> None:
        self._fleet = fleet
        self._directory = directory
        self._rng = rng
        self.replicas: list[str] = []
        self.hosts: list[str] = []

    @contextmanager
    def killed(self, service: str) -> Iterator[str]:
        """SIGKILL to a replica of a service, and a new start."""
        victim = self._any(service)
        self.replicas += self._fleet.kill(victim)
        try:
            yield f"{victim} killed"
        finally:
            self._fleet.start(victim)

    @contextmanager
    def paused(self, service: str) -> Iterator[str]:
        """SIGSTOP to a replica of a service, and SIGCONT."""
        victim = self._any(service)
        process = self._fleet.state.replicas[victim].process
        if process is None or not processes.send(process, signal.SIGSTOP):
            raise RuntimeError(f"{victim} ended before it could be paused")
        try:
            yield f"{victim} paused"
        finally:
            processes.send(process, signal.SIGCONT)

    @contextmanager
    def lost(self) -> Iterator[str]:
        """A whole host: everything on it at once, and its directory; then it comes back bare."""
        idle: list[str] = []
        while True:
            victim = self._busiest()
            self._fleet.kill(victim)
            self.hosts.append(victim)
            if interrupted(self._fleet.layout) or len(idle) == TRIES - 1:
                break
            # All on it had just ended; the loss of an idle host shows nothing.
            self._fleet.start(victim)
            idle.append(victim)
        before = f" (before it, with nothing on it: {', '.join(idle)})" if idle else ""
        try:
            yield f"{victim} lost{before}"
        finally:
            self._fleet.start(victim)

    @contextmanager
    def store_killed(self) -> Iterator[str]:
        """SIGKILL to the registry's database server, and a new start on the same data."""
        self._fleet.kill_store()
        try:
            yield "PostgreSQL killed"
        finally:
            self._fleet.start_store()

    @contextmanager
    def leader_killed(self) -> Iterator[str]:
        """SIGKILL to the server that leads ZooKeeper's ensemble, and a new start."""
        servers = self._fleet.zookeepers()
        leader = next((each for each in servers if each.mode == "leader"), None)
        if leader is None:
            raise RuntimeError(
                f"none of {len(servers)} ZooKeeper servers leads, so its leader can't be killed; "
                f"their logs are in {self._fleet.layout.zookeeper}"
            )
        leader.kill()
        try:
            yield "ZooKeeper's leader killed"
        finally:
            leader.start()

    @contextmanager
    def zookeeper_killed(self) -> Iterator[str]:
        """SIGKILL to all of ZooKeeper's servers, and a new start on the same data."""
        servers = self._fleet.zookeepers()
        for each in servers:
            each.kill()
        try:
            yield f"all {len(servers)} ZooKeeper servers killed"
        finally:
            # All at once: one alone has no quorum to wait for.
            for each in servers:
                each.spawn()
            for each in servers:
                each.wait()

    def _busiest(self) -> str:
        """The host with most jobs on it; waits a while for one that has any."""
        until = time.monotonic() + LOOK
        while True:
            counts: Counter[str] = Counter()
            for replica in self._directory.watch("appmanager").replicas():
                if self._fleet.running(replica.id):
                    counts[replica.host] += jobs_running(replica.target)
            (host, jobs), *_ = counts.most_common(1) or [("", 0)]
            if jobs:
                return host
            if time.monotonic() > until:
                return self._rng.choice(sorted(self._fleet.state.hosts))
            time.sleep(0.05)  # another process's jobs: nothing here is told of them

    def _any(self, service: str) -> str:
        replicas = self._fleet.state.replicas.values()
        names = sorted(each.id for each in replicas if each.service == service)
        return self._rng.choice(names)
