"""The time that something is held for: from the grant to its release or its loss, by our own clock.

ZooKeeper tells a client that its session has ended only when they speak again. A process that was
stopped, or whose network was, would go on as the holder until then. So each holder counts by
itself: the server has promised to keep the session for its timeout after it last heard of us, and
what it has answered it had heard, at the earliest when we sent it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# The time that the machine was asleep counts too, where the system's clocks can tell.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def uptime() -> float:
    """Monotonic seconds that go on while this process, or the machine, stands still."""
    return time.clock_gettime(_CLOCK)


class Tenure:
    """One holding. Once over it is over, whatever is heard later.

    Args:
        path: Of the node that stands for it.
        fence: That node's czxid: grows from holder to holder.
        session: The session that the node belongs to.
        until: Until when the session is known to live, by ``clock``.
        clock: Monotonic seconds; see `uptime`.
        told: Called once when it is lost, with the reason, on whatever thread finds it out, so it
            must not block. Not called for an orderly end.

    Attributes:
        lost: Set when it was lost; not by an orderly end.
    """

    def __init__(
        self,
        path: str,
        fence: int,
        session: int,
        until: float,
        *,
        clock: Callable[[], float] = uptime,
        told: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self.path = path
        self.fence = fence
        self.session = session
        self.lost = threading.Event()
        self._until = until
        self._clock = clock
        self._told = told
        # Reentrant: `held` may be asked in a signal handler.
        self._lock = threading.RLock()
        self._over: str | None = None

    def __repr__(self) -> str:
        return f"<Tenure {self.path} fence={self.fence} {self._over or 'held'}>"

    @property
    def until(self) -> float:
        """Until when it is known to last."""
        return self._until

    @property
    def held(self) -> bool:
        """Whether it lasts, by our own clock; False for ever once it was False."""
        if self._over is not None:
            return False
        if self._clock() < self._until:
            return True
        self.lose("ZooKeeper has not answered for as long as it keeps a session")
        return False

    @property
    def over(self) -> str | None:
        """Why it is over; None while it isn't known to be."""
        return self._over

    def prove(self, session: int, sent: float, timeout: float) -> None:
        """A request that was sent at ``sent`` was answered to a session of so long a timeout."""
        if session == self.session and self.held:
            # Whoever finds it over at the same moment has the last word: `_over` stays.
            self._until = max(self._until, sent + timeout)

    def lose(self, reason: str) -> None:
        """It is over against the holder's will. The first end counts."""
        if self._end(reason):
            self.lost.set()
            self._told(reason)

    def end(self) -> bool:
        """It is over because its holder wants so; whether it was held until now."""
        return self.held and self._end("it was released")

    def abandon(self) -> None:
        """In a forked child: it is the parent's. Takes no lock of the parent's."""
        self._lock = threading.RLock()
        self._over = "it belongs to the process that this one was forked from"
        self.lost = threading.Event()
        self.lost.set()

    def _end(self, reason: str) -> bool:
        with self._lock:
            first = self._over is None
            if first:
                self._over = reason
        return first
