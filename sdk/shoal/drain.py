"""How a replica leaves without a lost call: who has to hear of it, and in which order.

Order (anchors/balancing.md, lesson 15): tell the directory → serve on until every caller that said
Hello has said Released → refuse → finish what runs → leave the directory → exit. This module holds
what the sync and the asyncio server share; waiting and stopping is theirs.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# Callers hear of the change within a watch's time. Waited for even when nobody has said hello: a
# caller may be about to.
NOTICE = 0.25
# How long refusals are given before the port closes, when somebody did not say goodbye.
REFUSING_TIME = 0.5


class Phase(enum.Enum):
    """Where a server is between its start and its end."""

    SERVING = "serving"
    # Told the directory; serves on while callers move away.
    LEAVING = "leaving"
    # Turns new calls away, in a way that callers know to be safe to repeat.
    REFUSING = "refusing"


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What a drain saw.

    Attributes:
        released: Callers that moved away and said so.
        silent: Callers that had said hello and did not say goodbye in time.
        unknown: Callers that never said hello and still called while the replica was leaving
            (plain grpc clients, grpcurl); counted by connection.
        refused: Calls that were turned away.
        unfinished: Whether calls had to be cut off at the end of the grace.
        seconds: How long it took.
    """

    released: int = 0
    silent: int = 0
    unknown: int = 0
    refused: int = 0
    unfinished: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        parts = [
            f"{self.released} callers released",
            f"{self.silent} silent",
            f"{self.unknown} unknown",
            f"{self.refused} calls refused",
        ]
        if self.unfinished:
            parts.append("calls cut off")
        return f"drained in {self.seconds:.2f} s: {', '.join(parts)}"


class Roster:
    """Who may be calling this replica. Safe from any thread.

    Args:
        changed: Called whenever a caller has left.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self.phase = Phase.SERVING
        self.refused = 0
        self._changed = changed
        self._lock = threading.Lock()
        self._callers: dict[str, str] = {}
        self._released: set[str] = set()
        self._unknown: set[str] = set()

    def hello(self, caller_id: str, peer: str) -> None:
        """A caller may call over the connection ``peer``."""
        with self._lock:
            self._callers[caller_id] = peer
            self._released.discard(caller_id)

    def released(self, caller_id: str) -> None:
        """A caller has moved away."""
        with self._lock:
            if self._callers.pop(caller_id, None) is not None and self.phase is Phase.LEAVING:
                self._released.add(caller_id)
        self._changed()

    def called(self, peer: str) -> None:
        """A call came in over ``peer`` while the replica was leaving."""
        with self._lock:
            if peer not in self._callers.values():
                self._unknown.add(peer)

    def refuse(self) -> None:
        """A call was turned away."""
        with self._lock:
            self.refused += 1

    @property
    def remaining(self) -> int:
        """Callers that said hello and have not left."""
        return len(self._callers)

    @property
    def strangers(self) -> int:
        """Callers that never said hello and called while the replica was leaving."""
        return len(self._unknown)

    def report(self, began: float, *, unfinished: bool) -> DrainReport:
        """What the drain that began at ``began`` (monotonic seconds) saw."""
        return DrainReport(
            released=len(self._released),
            silent=len(self._callers),
            unknown=len(self._unknown),
            refused=self.refused,
            unfinished=unfinished,
            seconds=time.monotonic() - began,
        )
