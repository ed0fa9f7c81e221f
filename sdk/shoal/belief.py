"""What to believe when ZooKeeper shows an empty set.

A set goes empty in two ways. Its replicas left in order: each said DRAINING, or was disabled,
before its node went. Or their sessions ended, because ZooKeeper or the network between failed,
while the replicas serve on; they will announce themselves again. The first must be believed, the
second must not: an empty list helps nobody, and the worst that a list of dead replicas does is to
fail the calls that an empty one fails too.

So from a set that becomes empty, those that left in order leave, and the others are held until
some replica is there again. That has no time limit: nothing tells a long outage from a service
whose replicas were all killed, and only in the first is there something to lose.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal_balancer import Replica


@dataclass(frozen=True, slots=True)
class Belief:
    """What a caller goes by.

    Attributes:
        replicas: The set.
        held: Whether it is held although ZooKeeper shows none of it.
    """

    replicas: tuple[Replica, ...]
    held: bool = False


def believe(last: tuple[Replica, ...], observed: tuple[Replica, ...]) -> Belief:
    """The set to go by.

    Args:
        last: What this caller went by until now; empty if nothing.
        observed: What ZooKeeper shows.
    """
    if observed:
        return Belief(observed)
    remaining = tuple(replica for replica in last if replica.routable)
    return Belief(remaining, held=bool(remaining))
