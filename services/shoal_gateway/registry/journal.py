"""The history: append-only events with one order over all jobs."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from shoal_gateway.registry.clock import store_now
from shoal_gateway.registry.schema import counters, events

# Made once: to put a statement together costs more than to carry it out.
_RESERVE = (
    counters.update()
    .where(counters.c.name == "event")
    .values(value=counters.c.value + sa.bindparam("count", type_=counters.c.value.type))
    .returning(counters.c.value)
)
_APPEND = events.insert().values(at=store_now())


def reserve(connection: sa.Connection, count: int = 1) -> int:
    """Takes ``count`` numbers and returns the first.

    The counter's row stays locked until the transaction ends, so numbers become visible in their
    order. Numbers that are taken and not used leave a gap, which followers don't mind.
    """
    last: int = connection.execute(_RESERVE, {"count": count}).scalar_one()
    return last - count + 1


def append(connection: sa.Connection, entries: Sequence[tuple[int, str, int, str]]) -> None:
    """Writes events: (seq, job id, state, message)."""
    connection.execute(
        _APPEND,
        [
            {"seq": seq, "job_id": job_id, "state": state, "message": message}
            for seq, job_id, state, message in entries
        ],
    )


def latest(connection: sa.Connection) -> int:
    """The last event's seq; 0 before the first."""
    return connection.scalar(sa.select(counters.c.value).where(counters.c.name == "event")) or 0
