"""Who stands where in the line before a lock: names of nodes in, a place out. Pure.

Each contender has an ephemeral sequential node; whoever has the lowest number holds the lock, and
every other one watches the one node right before its own. So a node that goes wakes one contender,
however many wait.

The names are those of kazoo's own lock, so that either waits for the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MARK = "__lock__"
# ZooKeeper counts on from -2147483648 after 2147483647 nodes under one parent.
_NAME = re.compile(rf"^.*{MARK}(-?\d{{10}})$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """A contender's place in the line.

    Attributes:
        mine: Its node's name.
        before: The name of the node to wait for; None: it is its turn.
        ahead: How many stand before it.
        extras: Further nodes of the same contender, which nobody needs.
    """

    mine: str
    before: str | None
    ahead: int
    extras: tuple[str, ...] = ()


def prefix_of(contender: str) -> str:
    """What the names of a contender's nodes begin with; ZooKeeper appends the number.

    A create whose answer was lost may have worked: its node is found again by this.
    """
    return f"{contender}{MARK}"


def line(names: Iterable[str]) -> list[str]:
    """The contenders' nodes in their order; what else lies there is left out."""
    numbered = [(int(found[1]), name) for name in names if (found := _NAME.match(name))]
    return [name for _, name in sorted(numbered)]


def find(names: Iterable[str], prefix: str) -> Place | None:
    """The place of a contender, None when it has no node."""
    ordered = line(names)
    mine = [index for index, name in enumerate(ordered) if name.startswith(prefix)]
    if not mine:
        return None
    first = mine[0]
    return Place(
        ordered[first],
        ordered[first - 1] if first else None,
        first,
        tuple(ordered[index] for index in mine[1:]),
    )
