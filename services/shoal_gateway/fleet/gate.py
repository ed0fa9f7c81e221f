"""Whether a replica may count as healthy: what is looked at, and for how long it must be so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shoal.directory import Directory
from shoal_gateway.direct import channel_to
from shoal_gateway.fleet import processes
from shoal_gateway.fleet.arrival import birth
from shoal_gateway.fleet.rollout import Health
from shoal_gateway.fleet.state import ReplicaState
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc

logger = logging.getLogger(__name__)

# Seconds for one call of a gate; a replica that needs longer serves nobody well.
TIMEOUT = 3.0

# One call of each service that changes nothing and goes through what the service lives on.
PROBES: Mapping[str, Callable[[grpc.Channel], object]] = {
    "registry": lambda channel: registry_pb2_grpc.RegistryStub(channel).Summary(
        registry_pb2.SummaryRequest(), timeout=TIMEOUT
    ),
    "api": lambda channel: api_pb2_grpc.ApiStub(channel).Applications(
        api_pb2.ApplicationsRequest(), timeout=TIMEOUT
    ),
    "scheduler": lambda channel: scheduler_pb2_grpc.SchedulerStub(channel).Status(
        scheduler_pb2.StatusRequest(), timeout=TIMEOUT
    ),
    "appmanager": lambda channel: appmanager_pb2_grpc.AppManagerStub(channel).Status(
        appmanager_pb2.StatusRequest(), timeout=TIMEOUT
    ),
}


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a replica.

    Attributes:
        fault: The gate that it does not pass and why; empty when it passes all.
        dead: Whether its process has ended, so that waiting is of no use.
    """

    fault: str = ""
    dead: bool = False


def look(directory: Directory, replica: ReplicaState, version: str) -> Look:
    """Puts a replica to the gates: process, announcement, version, health, probe.

    Args:
        directory: Where it is to be announced.
        replica: With its process.
        version: That it must announce.
    """
    if replica.process is None or not processes.alive(replica.process):
        return Look("process: it has ended", dead=True)
    born = birth(replica)
    # A former life's node may be there still; it was announced before this one's birth.
    found = [
        each
        for each in directory.watch(replica.service).replicas()
        if each.id == replica.id and each.registered_at >= born
    ]
    if not found:
        return Look("announced: the directory does not list it")
    told = found[-1]
    if told.version != version:
        return Look(f"version: it announces {told.version or 'none'}, not {version}")
    if not told.routable:
        return Look(f"announced: it takes no calls, its status is {told.status}")
    # This one replica, so not through a channel that would pick another.
    with channel_to(replica.service, told, directory.tls) as channel:
        return Look(_health(channel) or _probe(replica.service, channel))


def _health(channel: grpc.Channel) -> str:
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=TIMEOUT
        )
    except grpc.RpcError as error:
        return f"health: {_said(error)}"
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    word = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return f"health: it says {word}"


def _probe(service: str, channel: grpc.Channel) -> str:
    try:
        PROBES[service](channel)
    except grpc.RpcError as error:
        return f"probe: {_said(error)}"
    return ""


def _said(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}"


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long.

    Attributes:
        healthy: Seconds that a replica passes all gates without a break until it is healthy.
        deadline: Seconds without that after which it has failed.

    Raises:
        ValueError: none could ever be healthy.
    """

    healthy: float
    deadline: float

    def __post_init__(self) -> None:
        if self.deadline <= self.healthy:
            raise ValueError(
                f"a replica that must be healthy for {self.healthy:g} s can't be so within "
                f"{self.deadline:g} s: the deadline must be longer"
            )


@dataclass(frozen=True, slots=True)
class Track:
    """What has been seen of a replica so far. Pure; `seen` gives the next.

    Attributes:
        patience: With it.
        since: When it was started, or when it was healthy last.
        good: Since when it passes all gates; None: it does not.
        fault: What the last look found; empty: nothing.
        health: How it stands.
    """

    patience: Patience
    since: float
    good: float | None = None
    fault: str = "process: not looked at yet"
    health: Health = Health.STARTING

    def seen(self, found: Look, now: float) -> Track:
        """After one more look.

        Args:
            found: What it has shown.
            now: Monotonic seconds.
        """
        if self.health is Health.FAILED:
            return self
        if found.dead:
            return replace(self, good=None, fault=found.fault, health=Health.FAILED)
        if not found.fault:
            good = now if self.good is None else self.good
            if now - good >= self.patience.healthy:
                return replace(self, since=now, good=good, fault="", health=Health.HEALTHY)
            return self._waiting(replace(self, good=good, fault=""), now)
        return self._waiting(replace(self, good=None, fault=found.fault), now)

    def _waiting(self, track: Track, now: float) -> Track:
        late = now - self.since >= self.patience.deadline
        if late and not track.fault:
            fault = f"healthy for {now - (track.good or now):.1f} s only when its time was up"
            track = replace(track, fault=fault)
        return replace(track, health=Health.FAILED if late else Health.STARTING)
