"""What to believe when ZooKeeper shows an empty set.

A set goes empty in two ways. Its replicas left in order: each said DRAINING, or was disabled,
before its node went. Or their sessions ended, because ZooKeeper or the network between failed,
while the replicas serve on; they will announce themselves again. The first must be believed, the
second must not: an empty list helps nobody, and the worst that a list of dead replicas does is to
fail the calls that an empty one fails too.

So from a set that becomes empty, those that left in order leave, and the others are held until
some replica is there again. That has no time limit: nothing tells a long outage from a service
whose replicas were all killed, and only in the first is there something to lose. Sessions that end
for one reason don't end at one moment, so those that vanished shortly before are held as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal_balancer import Replica
from shoal_balancer.replica import ordered

# Replicas that vanish within so many seconds vanish together: ZooKeeper ends sessions in steps of
# its tick, and the last may have been heard a session's timeout after the first.
TOGETHER = 30.0


@dataclass(frozen=True, slots=True)
class Belief:
    """What a caller goes by.

    Attributes:
        replicas: The set.
        held: Whether it is held although ZooKeeper shows none of it.
    """

    replicas: tuple[Replica, ...]
    held: bool = False


def believe(
    last: tuple[Replica, ...],
    observed: tuple[Replica, ...],
    lately: tuple[Replica, ...] = (),
) -> Belief:
    """The set to go by.

    Args:
        last: What this caller went by until now; empty if nothing.
        observed: What ZooKeeper shows.
        lately: Those that vanished within the last `TOGETHER` seconds.
    """
    if observed:
        return Belief(observed)
    remaining = tuple(replica for replica in last if replica.routable)
    if remaining:
        remaining = ordered((*lately, *remaining))
    return Belief(remaining, held=bool(remaining))


class Vanished:
    """Remembers who left without a word, for as long as that may be part of something larger."""

    def __init__(self) -> None:
        self._gone: dict[str, tuple[Replica, float]] = {}

    def note(self, last: tuple[Replica, ...], observed: tuple[Replica, ...], now: float) -> None:
        """A new set was seen at ``now``, monotonic seconds; ``last`` is the one before."""
        # By id: one that is there again on another port has not vanished.
        present = {replica.id for replica in observed}
        for replica in last:
            if replica.id not in present and replica.routable:
                self._gone[replica.id] = (replica, now)
        if self._gone:
            self._gone = {
                name: (replica, since)
                for name, (replica, since) in self._gone.items()
                if name not in present and now - since <= TOGETHER
            }

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """Them."""
        return tuple(replica for replica, _ in self._gone.values())
