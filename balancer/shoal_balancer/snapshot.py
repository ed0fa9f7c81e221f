"""Snapshots: all that a pick reads, frozen, and the pure functions that make the next one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from shoal_balancer.health import Ejection
from shoal_balancer.node import Node
from shoal_balancer.replica import Identity, Replica, Status, ordered
from shoal_balancer.warmup import SlowStart

E = TypeVar("E")

# When more than this share of a set vanishes within a reserve time without having drained, the
# directory is more likely wrong than the replicas dead: they stay in use for their reserve time.
# Within that time and not at once, for sessions that end for one reason end one after the other.
MASS_REMOVAL = 0.5
# Share of a set that was down whole at which those that are back may get everything again.
ENOUGH = 0.5
# The busy are spared while at least this share of the routable is left without them: where most are
# busy, the rest must not get everything.
CALM = 0.5


@dataclass(frozen=True, slots=True)
class Reserved(Generic[E]):
    """A node whose replica left the directory, kept for a while in case it comes back.

    Attributes:
        node: With its history, and its connection still open.
        until: When it leaves for good, on the balancer's clock.
        usable: Whether it is picked meanwhile: it vanished together with most of the set.
        vanished: Whether it left without having drained.
    """

    node: Node[E]
    until: float
    usable: bool
    vanished: bool = True


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[E]):
    """All that a pick reads.

    Attributes:
        nodes: The members of the set, sorted by replica id.
        replicas: What the directory says of each of ``nodes``, in the same order. Apart from the
            nodes, for these live through many snapshots, and a snapshot must not change.
        reserve: Those that left lately.
        expected: How many routable members there were before most of them vanished together; 0
            when they did not. Those that vanished are used until half as many are there again.
        ready: What picks draw from: routable, not held out as ejected, and not spared as busy.
        routable: Ready, ejected, and usable ones of the reserve: the last resort.
        probes: Ejected nodes whose time has come; the next pick takes one.
        refresh_at: When the next ejection ends; picks after that make a new snapshot first. While
            the set comes back it is the past, so that each pick asks `admission`.
        panic: Whether the ejected are called like the others, for too few are left.
        down: Whether no routable replica can be reached.
        recovering: Since when some are within reach again after all were out of it; else None.
        within_reach: Share of the routable that can be reached.
    """

    nodes: tuple[Node[E], ...] = ()
    replicas: tuple[Replica, ...] = ()
    reserve: tuple[Reserved[E], ...] = ()
    expected: int = 0
    ready: tuple[Node[E], ...] = ()
    routable: tuple[Node[E], ...] = ()
    probes: tuple[Node[E], ...] = ()
    refresh_at: float = math.inf
    panic: bool = False
    down: bool = False
    recovering: float | None = None
    within_reach: float = 1.0

    def admission(self, now: float, slow_start: SlowStart | None) -> float:
        """Share of calls that are let through, 0 to 1.

        The first replica that comes back of a set that was down whole must not get the load of all
        at once, or it goes down again. It gets its own share, and what is let through grows to
        everything within the time of a slow start.

        Source: brpc's cluster recovery, which admits q of n.
        """
        if self.recovering is None or slow_start is None:
            return 1.0
        return max(self.within_reach, (now - self.recovering) / slow_start.window)

    def everyone(self) -> dict[Identity, Node[E]]:
        """Members and reserve by identity."""
        known = {entry.node.replica.identity: entry.node for entry in self.reserve}
        known.update((node.replica.identity, node) for node in self.nodes)
        return known

    def peers(self, now: float) -> float | None:
        """Median of what the ready cost without calls in flight; None when none was measured."""
        known = [
            estimate for node in self.ready if (estimate := node.load.estimate(now)) is not None
        ]
        return statistics.median(known) if known else None


def settled(
    snapshot: Snapshot[E],
    now: float,
    ejection: Ejection | None = None,
    slow_start: SlowStart | None = None,
) -> Snapshot[E]:
    """The snapshot with what follows from its members at ``now``: ready, routable, probes.

    The cap of ``ejection`` holds here too, and not only when a replica is ejected: a set that
    shrinks around its ejected members must not be left with none. Those whose time ends first are
    then ready although they are ejected. A replica that can't be reached is not ready while another
    one is. One that says BUSY is not ready while those that don't are at least `CALM` of the
    routable; it stays the last resort, as the ejected do.
    """
    routable = tuple(
        node
        for node, replica in zip(snapshot.nodes, snapshot.replicas, strict=True)
        if replica.routable
    )
    routable += tuple(entry.node for entry in snapshot.reserve if entry.usable)
    ejected: list[tuple[float, int, Node[E]]] = []
    for index, node in enumerate(routable):
        until = node.health.until
        if until is not None:
            ejected.append((until, index, node))
    # Ties go by position, so that the same members always give the same snapshot.
    ejected.sort(key=lambda entry: entry[:2], reverse=True)
    allowed = 0 if ejection is None else ejection.allowed(len(routable))
    out = {node for _, _, node in ejected[:allowed]}
    reached = tuple(node for node in routable if node.reachable)
    usable = tuple(node for node in reached if node not in out)
    panic = bool(out) and ejection is not None and len(usable) < ejection.panic * len(routable)
    if panic:
        out, usable = set(), reached
    busy = {
        node
        for node, replica in zip(snapshot.nodes, snapshot.replicas, strict=True)
        if replica.status is Status.BUSY
    }
    if busy:
        calm = tuple(node for node in usable if node not in busy)
        if calm and len(calm) >= CALM * len(routable):
            usable = calm
    dues = [(node.health.due, node) for node in routable if node in out and node.reachable]
    down, recovering = _recovery(snapshot, now, len(reached), len(routable), slow_start)
    refresh_at = min((due for due, _ in dues if due > now), default=math.inf)
    return replace(
        snapshot,
        # One object where nothing is held out, which policies may recognise.
        ready=routable
        if len(usable) == len(routable)
        else usable or tuple(node for node in routable if node not in out),
        routable=routable,
        probes=tuple(node for due, node in dues if due <= now),
        refresh_at=refresh_at if recovering is None else -math.inf,
        panic=panic,
        down=down,
        recovering=recovering,
        within_reach=len(reached) / len(routable) if routable else 1.0,
    )


def _recovery(
    snapshot: Snapshot[E], now: float, reached: int, members: int, slow_start: SlowStart | None
) -> tuple[bool, float | None]:
    """Whether the set is down, and since when it comes back."""
    down, recovering = snapshot.down, snapshot.recovering
    if slow_start is None or not members:
        return False, None
    if not reached:
        return True, None
    if down:
        recovering = now
    over = recovering is not None and now >= recovering + slow_start.window
    if over or reached >= ENOUGH * members:
        recovering = None
    return False, recovering


def updated(
    old: Snapshot[E],
    observed: Iterable[Replica],
    now: float,
    *,
    make: Callable[[Replica], Node[E]],
    reserve: float = 10.0,
    ejection: Ejection | None = None,
    slow_start: SlowStart | None = None,
) -> Snapshot[E]:
    """The snapshot after the directory reported a whole new set. Changes nothing but newcomers.

    Nodes of replicas that stay, or come back from the reserve, keep their history. Newcomers start
    at the median estimate of the ready, and slowly where others are there already. Those that left
    go to the reserve.

    Args:
        old: The snapshot before.
        observed: Every replica that the directory knows now.
        now: The balancer's clock, seconds.
        make: Makes the node of a newcomer.
        reserve: Seconds that a replica stays in the reserve.
        ejection: Whose cap holds.
        slow_start: How newcomers begin.
    """
    replicas = ordered(observed)
    known = old.everyone()
    median = old.peers(now)
    nodes: list[Node[E]] = []
    newcomers: list[Node[E]] = []
    for replica in replicas:
        node = known.get(replica.identity)
        if node is None:
            node = make(replica)
            node.load.seed(median, now)
            newcomers.append(node)
        nodes.append(node)
    kept, expected = _kept(old, replicas, now, reserve)
    new = Snapshot(nodes=tuple(nodes), replicas=replicas, reserve=kept, expected=expected)
    snapshot = settled(new, now, ejection, slow_start)
    # Where all are new nobody is there to take their share meanwhile.
    if slow_start is not None and len(newcomers) < len(snapshot.ready):
        for node in newcomers:
            node.warming = now
    return snapshot


def succeeded(old: Snapshot[E], node: Node[E], successor: Node[E]) -> Snapshot[E]:
    """The members with one node in the place of another; what follows from them is not settled."""
    return replace(
        old,
        nodes=tuple(successor if each is node else each for each in old.nodes),
        reserve=tuple(
            replace(entry, node=successor) if entry.node is node else entry for entry in old.reserve
        ),
    )


def elapsed(
    old: Snapshot[E],
    now: float,
    ejection: Ejection | None = None,
    slow_start: SlowStart | None = None,
) -> Snapshot[E]:
    """The snapshot without those whose reserve time is over; the same one when there are none."""
    kept = tuple(entry for entry in old.reserve if entry.until > now)
    if len(kept) == len(old.reserve):
        return old
    expected = old.expected if any(entry.usable for entry in kept) else 0
    return settled(replace(old, reserve=kept, expected=expected), now, ejection, slow_start)


def _kept(
    old: Snapshot[E], replicas: tuple[Replica, ...], now: float, reserve: float
) -> tuple[tuple[Reserved[E], ...], int]:
    """The new reserve, and the size of the set that it stands in for (0: it is not used)."""
    present = {replica.identity for replica in replicas}
    kept = [
        entry
        for entry in old.reserve
        if entry.until > now and entry.node.replica.identity not in present
    ]
    gone = [
        (node, replica.routable)
        for node, replica in zip(old.nodes, old.replicas, strict=True)
        if replica.identity not in present
    ]
    kept += [
        Reserved(node, now + reserve, usable=False, vanished=routable) for node, routable in gone
    ]
    there = sum(replica.routable for replica in replicas)
    # Those that drained said goodbye: nothing is wrong with their leaving.
    missing = sum(entry.vanished for entry in kept)
    expected = old.expected
    if any(routable for _, routable in gone):
        before = {replica.identity for replica in old.replicas}
        stayed = sum(each.routable and each.identity in before for each in replicas)
        if missing > MASS_REMOVAL * (stayed + missing):
            expected = max(expected, stayed + missing)
    # A set that is filled with others was replaced and has not vanished.
    if there >= (1.0 - MASS_REMOVAL) * expected:
        expected = 0
    kept = [replace(entry, usable=bool(expected) and entry.vanished) for entry in kept]
    if not any(entry.usable for entry in kept):
        expected = 0
    return tuple(kept), expected
