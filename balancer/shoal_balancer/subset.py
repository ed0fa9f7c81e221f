"""Subsetting: each caller knows some of the replicas, so that connections stay few."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from shoal_balancer.affinity import digest, mixed
from shoal_balancer.replica import Replica


@dataclass(frozen=True, slots=True)
class Subset:
    """Which replicas of a large set one caller uses.

    Each caller ranks all replicas by a hash of both and takes the first. That needs no agreement
    between callers, and when one replica comes or goes at most one of a caller's changes. A caller
    has ``size`` connections; a replica has callers × size ÷ replicas of them on average, and by the
    binomial law rarely more than three roots of that above.

    Source: gRFC A68 (rendezvous subsetting).

    Attributes:
        size: Replicas that a caller uses.
        above: Sets up to this size are used whole.
    """

    size: int = 20
    above: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.above:
            raise ValueError(
                f"size must be at least 1 and at most above: size={self.size!r}, "
                f"above={self.above!r}"
            )

    def of(self, replicas: Iterable[Replica], caller: str) -> tuple[Replica, ...]:
        """The caller's own replicas, in the order that they were given.

        Replicas that take no new calls are kept beside them: who leaves in order must be seen to.
        """
        given = tuple(replicas)
        routable = [replica for replica in given if replica.routable]
        if len(routable) <= self.above:
            return given
        hashed = digest(caller.encode())
        chosen = heapq.nsmallest(
            self.size, routable, key=lambda replica: mixed(hashed, digest(replica.id.encode()))
        )
        kept = {replica.identity for replica in chosen}
        return tuple(
            replica for replica in given if replica.identity in kept or not replica.routable
        )
