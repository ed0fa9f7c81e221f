"""What a channel looks like from outside, for people and for status pages."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.fitness import Unfit
from shoal.pool import Pool, ReplicaNode
from shoal.retry import Retry
from shoal_balancer import Replica, SlowStart


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica as a channel sees it.

    Attributes:
        replica: What the directory says.
        state: Of its connection: "ready", "connecting", "transient failure", "idle"; "unused" while
            no call went there; "unknown" where grpc does not tell.
        routable: Whether new calls may go there as far as the directory says.
        reachable: False while its connection is known to be broken.
        in_flight: Calls begun and not ended.
        ewma: The policy's estimate of its latency in seconds; None where it has none.
        weight: What it announced.
        share: Of its share during slow start, 0 to 1.
        ejected_for: Seconds that its ejection still lasts, 0 when only a probe is awaited; None
            when it is not ejected.
        calls: Calls ended.
        failures: Those of them that failed.
        reserve: Whether it has left the directory and is kept for a while.
    """

    replica: Replica
    state: str
    routable: bool
    reachable: bool
    in_flight: int
    ewma: float | None
    weight: float
    share: float
    ejected_for: float | None
    calls: int
    failures: int
    reserve: bool = False


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel at one moment.

    Attributes:
        service: Whose replicas.
        policy: The policy's ``repr``.
        directory: Its state for a person.
        replicas: Members by id, then those in reserve.
        panic: Whether ejected replicas are called like the others.
        down: Whether none can be reached.
        admission: Share of calls that is let through while the set comes back, 0 to 1.
        retries_left: Retries that the budget would allow now; None without retries.
        unfit: Replicas that are passed over for their version or their contract, and why.
    """

    service: str
    policy: str
    directory: str
    replicas: tuple[ReplicaView, ...]
    panic: bool
    down: bool
    admission: float
    retries_left: float | None
    unfit: tuple[Unfit, ...] = ()


def view(pool: Pool, retry: Retry | None) -> ChannelView:
    """Looks at a pool. Costs a few microseconds a replica; nothing that calls wait for."""
    now = pool.clock()
    snapshot = pool.balancer.snapshot
    slow_start = pool.balancer.slow_start
    members = [_replica(node, now, slow_start) for node in snapshot.nodes]
    reserve = [_replica(entry.node, now, slow_start, reserve=True) for entry in snapshot.reserve]
    return ChannelView(
        service=pool.service,
        policy=repr(pool.policy),
        directory=pool.watch.describe(),
        replicas=(*members, *reserve),
        panic=snapshot.panic,
        down=snapshot.down,
        admission=snapshot.admission(now, slow_start),
        retries_left=max(retry.budget.balance(), 0.0) if retry is not None else None,
        unfit=pool.unfit,
    )


def _replica(
    node: ReplicaNode, now: float, slow_start: SlowStart | None, *, reserve: bool = False
) -> ReplicaView:
    until, warming = node.health.until, node.warming
    return ReplicaView(
        replica=node.replica,
        state=_state(node),
        routable=node.replica.routable,
        reachable=node.reachable,
        in_flight=node.in_flight,
        ewma=node.load.estimate(now),
        weight=node.replica.weight,
        share=slow_start.share(now - warming) if slow_start and warming is not None else 1.0,
        ejected_for=None if until is None else max(until - now, 0.0),
        calls=node.calls,
        failures=node.failures,
        reserve=reserve,
    )


def _state(node: ReplicaNode) -> str:
    if not node.endpoint.opened:
        return "unused"
    state = node.endpoint.state()
    return "unknown" if state is None else state.name.lower().replace("_", " ")
