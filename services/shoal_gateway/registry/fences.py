"""Fences: who leads something writes under one, and the store refuses an older than it has seen.

Source: Kleppmann, "How to do distributed locking" (2016); the fence is the czxid of the leader's
node in ZooKeeper, which grows from leader to leader.
"""

from __future__ import annotations

import sqlalchemy as sa

from shoal_gateway.errors import PreconditionError
from shoal_gateway.registry.schema import fences

REAPER = "reaper"


class StaleFenceError(PreconditionError):
    """Somebody with a newer fence has written: who has this one leads no longer."""


def enforce(connection: sa.Connection, resource: str, fence: int) -> None:
    """Notes a fence within the transaction that it protects.

    The row stays locked until the transaction ends, so that one with a newer fence comes after it.

    Raises:
        StaleFenceError: a newer one was seen; the transaction must be given up.
        KeyError: no migration has made the resource.
    """
    noted = connection.execute(
        fences.update()
        .where(fences.c.resource == resource, fences.c.fence <= fence)
        .values(fence=fence)
    )
    if noted.rowcount == 1:
        return
    seen = connection.scalar(sa.select(fences.c.fence).where(fences.c.resource == resource))
    if seen is None:
        raise KeyError(f"no fence is kept for {resource!r}")
    raise StaleFenceError(
        f"{resource}: fence {fence} is stale, {seen} was seen; another replica leads by now"
    )
