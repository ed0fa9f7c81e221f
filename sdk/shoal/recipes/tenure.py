"""The time that something is held for: from the grant to its release or its loss, by our own clock.

ZooKeeper tells a client that its session has ended only when they speak again. A process that was
stopped, or whose network was, would go on as the holder until then. So each holder counts by
itself, with `Proofs` of the session's life.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

# The time that the machine was asleep counts too, where the system's clocks can tell.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


# Shares of a session's timeout. A server tells its leader, who ends sessions, of whom it has heard
# when the leader pings it: half a tick later at most, and no session is shorter than two ticks.
_UNTOLD = 1 / 4
# kazoo says something at least so often, whatever else is sent.
_SILENT = 1 / 3


def uptime() -> float:
    """Monotonic seconds that go on while this process, or the machine, stands still."""
    return time.clock_gettime(_CLOCK)


class Proofs:
    """Until when a session lives for certain, by what was sent in it and what was answered.

    Only a request that its leader carries out with a quorum proves anything: a server that was cut
    off from the others goes on to answer reads, for seconds, while they end the session and let
    somebody else in. And what was answered proves less than it seems. The leader keeps a session
    for its timeout after it was last *told* of it, and of the answered request itself it may not
    have been told when its server was cut off: only of what came before, long enough for a ping.
    """

    def __init__(self) -> None:
        self._session = 0
        # When; what is older than a session does not matter.
        self._sent: deque[float] = deque(maxlen=32)

    def sent(self, session: int, now: float) -> None:
        """Something is sent."""
        if session != self._session:
            self._session = session
            self._sent.clear()
        self._sent.append(now)

    def until(self, session: int, sent: float, timeout: float) -> float:
        """Until when it lives at least.

        Args:
            session: Its id.
            sent: When the request was sent that a quorum carried out.
            timeout: The session's, seconds.
        """
        heard = sent - (_UNTOLD + _SILENT) * timeout
        if session == self._session:
            # A copy, made in one go: something may be sent on another thread meanwhile.
            told = [each for each in tuple(self._sent) if each <= sent - _UNTOLD * timeout]
            heard = max([heard, *told])
        return heard + timeout


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

    def prove(self, session: int, until: float) -> None:
        """A session is known to live until then; see `Proofs`."""
        if session == self.session and self.held:
            # Whoever finds it over at the same moment has the last word: `_over` stays.
            self._until = max(self._until, until)

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
