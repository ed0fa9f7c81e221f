"""The history of a document: what is written with each version, and what goes. Pure.

The document is the data of its node, whose version is the token for compare-and-set. Each version
has a child named after it, written in the same transaction. The versions of a node only grow and
each is given once, so that the names of children are never given twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shoal.errors import ConfigInvalidError

# Versions that are kept, the current one included.
KEEP = 32
# Longest message and name of a writer, characters.
MAX_WHY = 2000
MAX_WHO = 200

_ENTRY = re.compile(r"v(\d{10})")


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wants to write.

    Attributes:
        data: The encoded document.
        who: Writes it.
        why: The message.
        id: Of this very write, by which it is known again when its answer was lost.
        restores: The version whose content it brings back; None: none.
    """

    data: bytes
    who: str
    why: str
    id: str
    restores: int | None = None

    def __post_init__(self) -> None:
        for what, text, most in (("why", self.why, MAX_WHY), ("who", self.who, MAX_WHO)):
            if len(text) > most:
                raise ConfigInvalidError(
                    f"{what} has {len(text)} characters and may have {most}: say it shorter"
                )

    def entry(self) -> bytes:
        """The node in the history."""
        told: dict[str, Any] = {"who": self.who, "why": self.why, "id": self.id}
        if self.restores is not None:
            told["restores"] = self.restores
        told["document"] = json.loads(self.data)
        return json.dumps(told, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of a document, as the history tells of it.

    Attributes:
        version: The number; the token for compare-and-set while it is the current one.
        when: Seconds since 1970, by ZooKeeper's clock.
        who: Wrote it; "" where it was written past `shoal.Config`.
        why: The writer's message.
        document: Its fields; None where they can't be read.
        restores: The version whose content it brought back; None: none.
        id: Of the write.
    """

    version: int
    when: float
    who: str = ""
    why: str = ""
    document: dict[str, Any] | None = None
    restores: int | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes that one write makes and removes.

    Attributes:
        version: What it will be.
        entry: Name of its child.
        drop: Names of the children that go.
    """

    version: int
    entry: str
    drop: tuple[str, ...]


def planned(version: int | None, kept: Sequence[int], keep: int = KEEP) -> Plan:
    """What follows the current version; None: there is no document yet.

    Args:
        version: The current one.
        kept: Versions in the history.
        keep: How many it may have then.
    """
    new = 0 if version is None else version + 1
    too_many = max(0, len(kept) + 1 - keep)
    return Plan(new, entry_name(new), tuple(entry_name(each) for each in sorted(kept)[:too_many]))


def entry_name(version: int) -> str:
    """Name of a version's child."""
    return f"v{version:010d}"


def entries(children: Iterable[str]) -> list[int]:
    """The versions in a history, oldest first; whatever else lies there is passed over."""
    return sorted(int(found[1]) for name in children if (found := _ENTRY.fullmatch(name)))


def revision(version: int, when: float, data: bytes) -> Revision:
    """Reads an entry of the history; one that can't be read says so."""
    try:
        told = json.loads(data)
        return Revision(
            version,
            when,
            str(told["who"]),
            str(told["why"]),
            dict(told["document"]),
            int(told["restores"]) if "restores" in told else None,
            str(told["id"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        return Revision(version, when, why=f"(this entry can't be read: {error!r})")


def unsigned(version: int, when: float, data: bytes) -> Revision:
    """The current version where the history has no entry for it: another tool wrote it."""
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    return Revision(
        version,
        when,
        why="(written past shoal.Config)",
        document=document if isinstance(document, dict) else None,
    )
