"""The pick: draws from a snapshot, and learns from how calls end.

Writers (a new set from the directory, an ejection) take a lock and publish a new `Snapshot` by one
assignment. Pickers read that reference and take no lock: they see the whole old list or the whole
new one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar, cast

from shoal_balancer.choice import KeyedPolicy, Policy
from shoal_balancer.health import Ejection
from shoal_balancer.node import Node, ObservedNode, Observer
from shoal_balancer.replica import Replica
from shoal_balancer.snapshot import Snapshot, elapsed, settled, succeeded, updated
from shoal_balancer.warmup import SlowStart

E = TypeVar("E")


class Balancer(Generic[E]):
    """Picks a node for each call and learns from each call's end.

    Attributes:
        policy: Load metric and choice.
        ejection: When to eject; None never ejects.
        slow_start: How newcomers, and a set that was down whole, begin; None: at once.
        snapshot: What picks read now. Frozen; hold it for a consistent look.

    Args:
        policy: Load metric and choice.
        connect: Makes the endpoint of a newcomer; must not block.
        clock: Seconds, monotonic.
        rng: Randomness; its ``random()`` must be safe to call from several threads.
        lock: A re-entrant lock, for writers only.
        ejection: When to eject; None never ejects.
        slow_start: How newcomers, and a set that was down whole, begin; None: at once.
        reserve: Seconds that a replica which left the directory is kept.
        observer: Told of ends and ejections; None costs nothing.
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
        slow_start: SlowStart | None = SlowStart(),  # noqa: B008 - frozen
        reserve: float = 10.0,
        observer: Observer | None = None,
    ) -> None:
        self.policy = policy
        self.ejection = ejection
        self.slow_start = slow_start
        self.snapshot: Snapshot[E] = Snapshot()
        self._clock = clock
        self._connect = connect
        self._rng = rng
        self._lock = lock
        self._reserve = reserve
        self._observer = observer

    def __repr__(self) -> str:
        snapshot = self.snapshot
        parts = [f"{len(snapshot.nodes)} replicas", f"{len(snapshot.ready)} ready"]
        ejected = sum(node.health.ejected for node in snapshot.routable)
        if ejected:
            parts.append(f"{ejected} ejected")
        unreachable = sum(not node.reachable for node in snapshot.routable)
        if unreachable:
            parts.append(f"{unreachable} out of reach")
        if snapshot.reserve:
            usable = sum(entry.usable for entry in snapshot.reserve)
            parts.append(f"{len(snapshot.reserve)} in reserve ({usable} in use)")
        return f"<Balancer {self.policy!r}: {', '.join(parts)}>"

    def update(self, observed: Iterable[Replica]) -> list[Node[E]]:
        """Takes a whole new set in; returns the nodes that left for good, retired."""
        with self._lock:
            old = self.snapshot
            new = updated(
                old,
                observed,
                self._clock(),
                make=self._make,
                reserve=self._reserve,
                ejection=self.ejection,
                slow_start=self.slow_start,
            )
            return self._publish(old, new)

    def tick(self) -> list[Node[E]]:
        """Ends reserve times that ran out; returns the nodes that left for good, retired."""
        with self._lock:
            old = self.snapshot
            return self._publish(old, elapsed(old, self._clock(), self.ejection, self.slow_start))

    def reach(self, node: Node[E], *, reachable: bool) -> None:
        """Takes in what is known of a node's connection."""
        if node.reachable is reachable:
            return
        with self._lock:
            node.reachable = reachable
            self._settle(self._clock())

    def pick(
        self, now: float, exclude: Collection[Node[E]] = (), key: bytes | None = None
    ) -> Node[E] | None:
        """A node for a call at ``now``, not in ``exclude``; None when there is none.

        Takes no lock unless an ejection has just run out, or the set comes back after none of it
        could be reached; then a pick may be None so that the first one back is not overrun. The
        caller says `Node.begin`, and picks again when the node turns out to be retired.

        A pick without ``exclude`` may be a probe of an ejected node and must be followed by a call.
        A retry (with ``exclude``) is no probe: it has failed once and should find a healthy node.
        It takes an ejected one only when it has tried all others.
        """
        snapshot = self.snapshot
        if exclude:
            nodes = tuple(node for node in snapshot.ready if node not in exclude) or tuple(
                node for node in snapshot.routable if node not in exclude
            )
        else:
            if snapshot.probes or now >= snapshot.refresh_at:
                probe = self._probe(now)
                if probe is not None:
                    return probe
                snapshot = self.snapshot
                if self._rng.random() >= snapshot.admission(now, self.slow_start):
                    return None
            nodes = snapshot.ready
        if not nodes:
            return None
        if key is not None:
            return cast(KeyedPolicy, self.policy).choose_for(key, nodes, now, self._rng)
        node = self.policy.choose(nodes, now, self._rng)
        if node.warming is not None:
            return self._warmed(node, nodes, now)
        return node

    def succeed(self, node: Node[E], endpoint: E) -> bool:
        """Puts another endpoint in a node's place: calls that begin from now on go there.

        The old node is retired; what runs on it ends on it (`Node.when_idle`).

        Returns:
            False when the node has left meanwhile, or was retired, and nothing was changed.
        """
        with self._lock:
            old = self.snapshot
            if node.retired or old.everyone().get(node.replica.identity) is not node:
                return False
            new = succeeded(old, node, node.succeeded(endpoint))
            self.snapshot = settled(new, self._clock(), self.ejection, self.slow_start)
            # After it: a picker that still holds the old one sees the mark and picks again.
            node.retired = True
        return True

    def failed(self, node: Node[E], latency: float, now: float) -> None:
        """A call on ``node`` failed: counts it, and ejects when it is time."""
        node.load.penalize(latency, now)
        rule = self.ejection
        if rule is None:
            return
        with self._lock:
            permitted = self._may_eject(node, rule)
            if node.health.fail(
                rule,
                now,
                self._rng,
                permitted=permitted,
                calls=node.calls,
                failures=node.failures,
            ):
                self._settle(now)
                if self._observer is not None:
                    self._observer.ejected(node.replica, (node.health.until or now) - now)

    def recovered(self, node: Node[E], now: float) -> None:
        """A call on ``node`` succeeded: forgets the streak, and ends an ejection that it proves."""
        with self._lock:
            snapshot = self.snapshot
            if node.health.succeed(now, trusted=node in snapshot.ready):
                # Its time out was the price for failing. With the load that its failures left it
                # with as well, it would wait for a minute more.
                node.load.seed(snapshot.peers(now), now)
                self._settle(now)
                if self._observer is not None:
                    self._observer.readmitted(node.replica)

    def unproven(self, node: Node[E]) -> None:
        """The probe of ``node`` was given up by its caller: lets another pick be the probe."""
        with self._lock:
            if node.health.unproven():
                self._settle(self._clock())

    def _make(self, replica: Replica) -> Node[E]:
        endpoint, load = self._connect(replica), self.policy.load()
        if self._observer is not None:
            return ObservedNode(replica, endpoint, load, self, self._observer)
        return Node(replica, endpoint, load, self)

    def _may_eject(self, node: Node[E], rule: Ejection) -> bool:
        routable = self.snapshot.routable
        ejected = sum(other.health.ejected for other in routable)
        # One that leaves gets no calls anyway, and would count when it comes back.
        return node in routable and ejected < rule.allowed(len(routable))

    def _settle(self, now: float) -> None:
        self.snapshot = settled(self.snapshot, now, self.ejection, self.slow_start)

    def _warmed(self, node: Node[E], nodes: Sequence[Node[E]], now: float) -> Node[E]:
        """A newcomer as often as its age allows, else one of those that are warm."""
        rule, since = self.slow_start, node.warming
        share = 1.0 if rule is None or since is None else rule.share(now - since)
        if share >= 1.0:
            node.warming = None
            return node
        if self._rng.random() < share:
            return node
        warm = tuple(other for other in nodes if other.warming is None)
        return self.policy.choose(warm, now, self._rng) if warm else node

    def _publish(self, old: Snapshot[E], new: Snapshot[E]) -> list[Node[E]]:
        # Before pickers see them: a node that is welcome again must not send them away.
        for node, replica in zip(new.nodes, new.replicas, strict=True):
            node.replica = replica
            if replica.routable:
                node.retired = False
        self.snapshot = new
        # After it: a picker that still holds the old one sees the mark and picks again.
        for node, replica in zip(new.nodes, new.replicas, strict=True):
            if not replica.routable:
                node.retired = True
        stayed = new.everyone()
        left = [node for key, node in old.everyone().items() if stayed.get(key) is not node]
        for node in left:
            node.retired = True
        return left

    def _probe(self, now: float) -> Node[E] | None:
        """Takes the one probe of an ejected node whose time has come, if there is one."""
        rule = self.ejection
        with self._lock:
            self._settle(now)
            probes = self.snapshot.probes
            if rule is None or not probes:
                return None
            probes[0].health.probe(rule, now)
            self._settle(now)
            return probes[0]
