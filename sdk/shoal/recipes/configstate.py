"""What a follower of a document knows, and what it makes of the next that it sees. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

from shoal.errors import ConfigInvalidError

M = TypeVar("M")


class Source(StrEnum):
    """Where a value is from."""

    DEFAULTS = "defaults"
    DISK = "disk"
    ZOOKEEPER = "zookeeper"


@dataclass(frozen=True, slots=True)
class Observed:
    """A document as it was read.

    Attributes:
        data: The bytes.
        version: Of the node.
    """

    data: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Reading(Generic[M]):
    """The value that holds now, replaced as a whole.

    Attributes:
        value: The last good one.
        version: Of the document that it is from; None: from no document.
        source: Where it is from.
        problem: Why the newest document is not the one that holds; None when it is.
        newest: The version that was seen last, good or not.
    """

    value: M
    version: int | None
    source: Source
    problem: str | None = None
    newest: int | None = None

    def __str__(self) -> str:
        if self.version is None:
            told = "the defaults" if self.source is Source.ZOOKEEPER else "the defaults, unread"
        else:
            told = f"version {self.version}"
            told += " from disk" if self.source is Source.DISK else ""
        return f"{told} ({self.problem})" if self.problem else told


def following(
    reading: Reading[M], seen: Observed | None, read: Callable[[bytes], M], defaults: M
) -> Reading[M]:
    """What holds after a look: a document that is not good, or gone, leaves what was.

    Args:
        reading: What holds until now.
        seen: The document; None: there is none.
        read: Makes a value of its bytes, or raises `ConfigInvalidError`.
        defaults: What holds where there is no document.
    """
    if seen is None:
        if reading.source is Source.ZOOKEEPER and reading.version is not None:
            # To go back to the defaults one writes an empty document. So a document vanishes by
            # mistake, or because ZooKeeper has lost its data.
            gone = f"the document is gone; version {reading.version} still holds"
            return replace(reading, problem=gone, newest=None)
        return Reading(defaults, None, Source.ZOOKEEPER)
    try:
        value = read(seen.data)
    except ConfigInvalidError as error:
        held = "the defaults hold" if reading.version is None else f"{reading.version} still holds"
        told = f"version {seen.version} is passed over, {held}: {error}"
        return replace(reading, problem=told, newest=seen.version)
    return Reading(value, seen.version, Source.ZOOKEEPER, newest=seen.version)
