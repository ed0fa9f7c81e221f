"""The pick: snapshots of nodes, replaced as a whole, and what moves between them.

Writers (a new set from the directory, an ejection) take a lock and publish a new `Snapshot` by one
assignment. Pickers read that reference and take no lock: they see the whole old list or the whole
new one.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from shoal_balancer.choice import Policy
from shoal_balancer.health import Ejection
from shoal_balancer.node import Node
from shoal_balancer.replica import Replica

E = TypeVar("E")

# When more than this share of a set vanishes in one change without having drained, the directory is
# more likely wrong than the replicas dead: they stay in use for their reserve time.
MASS_REMOVAL = 0.5


@dataclass(frozen=True, slots=True)
class Reserved(Generic[E]):
    """A node whose replica left the directory, kept for a while in case it comes back.

    Attributes:
        node: With its history, and its connection still open.
        until: When it leaves for good, on the balancer's clock.
        usable: Whether it is picked meanwhile: it vanished together with most of the set.
    """

    node: Node[E]
    until: float
    usable: bool


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[E]):
    """All that a pick reads.

    Attributes:
        nodes: The members of the set, sorted by replica id.
        reserve: Those that left lately.
        ready: What picks draw from: routable and not ejected, or all routable when none is left.
        routable: Ready, ejected, and usable ones of the reserve: the last resort.
        probes: Ejected nodes whose time has come; the next pick takes one.
        refresh_at: When the next ejection ends; picks after that make a new snapshot first.
    """

    nodes: tuple[Node[E], ...] = ()
    reserve: tuple[Reserved[E], ...] = ()
    ready: tuple[Node[E], ...] = ()
    routable: tuple[Node[E], ...] = ()
    probes: tuple[Node[E], ...] = ()
    refresh_at: float = math.inf

    def everyone(self) -> dict[tuple[str, str], Node[E]]:
        """Members and reserve by identity."""
        known = {entry.node.replica.identity: entry.node for entry in self.reserve}
        known.update((node.replica.identity, node) for node in self.nodes)
        return known


def settled(snapshot: Snapshot[E], now: float) -> Snapshot[E]:
    """The snapshot with what follows from its members at ``now``: ready, routable, probes."""
    routable = tuple(node for node in snapshot.nodes if node.replica.routable)
    routable += tuple(entry.node for entry in snapshot.reserve if entry.usable)
    ready = tuple(node for node in routable if not node.health.ejected)
    probes: list[Node[E]] = []
    refresh_at = math.inf
    for node in routable:
        health = node.health
        if health.until is None:
            continue
        # A probe whose end was never told is given up after a while, else it would wait for ever.
        due = health.until if health.probing_until is None else health.probing_until
        if due <= now:
            probes.append(node)
        else:
            refresh_at = min(refresh_at, due)
    return replace(
        snapshot,
        ready=ready or routable,
        routable=routable,
        probes=tuple(probes),
        refresh_at=refresh_at,
    )


def updated(
    old: Snapshot[E],
    observed: Iterable[Replica],
    now: float,
    *,
    make: Callable[[Replica], Node[E]],
    reserve: float = 10.0,
) -> Snapshot[E]:
    """The snapshot after the directory reported a whole new set.

    Nodes of replicas that stay, or come back from the reserve, keep their history. Newcomers start
    at the median estimate of the ready. Those that left go to the reserve.

    Args:
        old: The snapshot before.
        observed: Every replica that the directory knows now.
        now: The balancer's clock, seconds.
        make: Makes the node of a newcomer.
        reserve: Seconds that a replica stays in the reserve.
    """
    known = old.everyone()
    peers = [e for node in old.ready if (e := node.load.estimate(now)) is not None]
    median = statistics.median(peers) if peers else None
    nodes: dict[tuple[str, str], Node[E]] = {}
    for replica in sorted(observed, key=lambda replica: replica.id):
        node = known.get(replica.identity)
        if node is None:
            node = make(replica)
            node.load.seed(median, now)
        elif node.replica != replica:
            node.replica = replica
        nodes[replica.identity] = node

    gone = [node for node in old.nodes if node.replica.identity not in nodes]
    vanished = [node for node in gone if node.replica.routable]
    before = sum(node.replica.routable for node in old.nodes)
    usable = len(vanished) > MASS_REMOVAL * before
    kept = [
        entry
        for entry in old.reserve
        if entry.until > now and entry.node.replica.identity not in nodes
    ]
    kept += [Reserved(node, now + reserve, usable and node.replica.routable) for node in gone]
    return settled(Snapshot(nodes=tuple(nodes.values()), reserve=tuple(kept)), now)


class Balancer(Generic[E]):
    """Picks a node for each call and learns from each call's end.

    Args:
        policy: Load metric and choice.
        connect: Makes the endpoint of a newcomer; must not block.
        clock: Seconds, monotonic.
        rng: Randomness; its ``random()`` must be safe to call from several threads.
        lock: A re-entrant lock, for writers only.
        ejection: When to eject; None never ejects.
        reserve: Seconds that a replica which left the directory is kept.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        connect: Callable[[Replica], E],
        clock: Callable[[], float],
        rng: random.Random,
        lock: AbstractContextManager[object],
        ejection: Ejection | None = Ejection(),  # noqa: B008 - frozen
        reserve: float = 10.0,
    ) -> None:
        self.policy = policy
        self.ejection = ejection
        self.snapshot: Snapshot[E] = Snapshot()
        self._clock = clock
        self._connect = connect
        self._rng = rng
        self._lock = lock
        self._reserve = reserve

    def update(self, observed: Iterable[Replica]) -> list[Node[E]]:
        """Takes a whole new set in; returns the nodes that left for good, retired."""
        with self._lock:
            old = self.snapshot
            return self._publish(
                old, updated(old, observed, self._clock(), make=self._make, reserve=self._reserve)
            )

    def tick(self) -> list[Node[E]]:
        """Ends reserve times that ran out; returns the nodes that left for good, retired."""
        with self._lock:
            old = self.snapshot
            now = self._clock()
            reserve = tuple(entry for entry in old.reserve if entry.until > now)
            if len(reserve) == len(old.reserve):
                return []
            return self._publish(old, settled(replace(old, reserve=reserve), now))

    def pick(self, now: float, exclude: Collection[Node[E]] = ()) -> Node[E] | None:
        """A node for a call at ``now``, not in ``exclude``; None when there is none.

        Takes no lock unless an ejection has just run out. The caller says `Node.begin`, and picks
        again when the node turns out to be retired.
        """
        snapshot = self.snapshot
        if now >= snapshot.refresh_at or snapshot.probes:
            probe = self._probe(now, exclude)
            if probe is not None:
                return probe
            snapshot = self.snapshot
        nodes = snapshot.ready
        if exclude:
            nodes = tuple(node for node in nodes if node not in exclude) or tuple(
                node for node in snapshot.routable if node not in exclude
            )
        if not nodes:
            return None
        return self.policy.choose(nodes, now, self._rng)

    def failed(self, node: Node[E], latency: float, now: float) -> None:
        """A call on ``node`` failed: counts it, and ejects when it is time."""
        node.load.penalize(latency, now)
        rule = self.ejection
        if rule is None:
            return
        with self._lock:
            health = node.health
            health.streak += 1
            if health.until is not None:
                # A probe failed, or a call that was out when the ejection began: only the probe
                # counts, for the others tell of the past.
                if health.probing_until is None:
                    return
            elif health.streak < rule.failures or not self._may_eject(rule):
                return
            else:
                health.ejections = rule.forgiven(health.ejections, now - health.readmitted)
            health.probing_until = None
            health.until = now + rule.duration(health.ejections, self._rng)
            health.ejections += 1
            self.snapshot = settled(self.snapshot, now)

    def recovered(self, node: Node[E], now: float) -> None:
        """A call on ``node`` succeeded: forgets the streak, and ends an ejection that it proves."""
        with self._lock:
            health = node.health
            health.streak = 0
            if health.until is None:
                return
            health.until = None
            health.probing_until = None
            health.readmitted = now
            self.snapshot = settled(self.snapshot, now)

    def unproven(self, node: Node[E], now: float) -> None:
        """A probe that its caller gave up proves nothing: the next call is the probe."""
        with self._lock:
            node.health.probing_until = None
            self.snapshot = settled(self.snapshot, now)

    def _make(self, replica: Replica) -> Node[E]:
        return Node(replica, self._connect(replica), self.policy.load(), self)

    def _may_eject(self, rule: Ejection) -> bool:
        routable = self.snapshot.routable
        ejected = sum(node.health.ejected for node in routable)
        return rule.permits(len(routable), ejected)

    def _publish(self, old: Snapshot[E], new: Snapshot[E]) -> list[Node[E]]:
        self.snapshot = new
        stayed = new.everyone()
        left = [node for key, node in old.everyone().items() if stayed.get(key) is not node]
        # After the snapshot: a picker that still holds the old one sees the mark and picks again.
        for node in left:
            node.retired = True
        for node in new.nodes:
            node.retired = not node.replica.routable
        return left

    def _probe(self, now: float, exclude: Collection[Node[E]]) -> Node[E] | None:
        """Takes the one probe of an ejected node whose time has come, if there is one."""
        rule = self.ejection
        with self._lock:
            snapshot = self.snapshot = settled(self.snapshot, now)
            for node in snapshot.probes:
                if node in exclude or rule is None:
                    continue
                node.health.probing_until = now + rule.cap
                self.snapshot = settled(snapshot, now)
                return node
        return None
