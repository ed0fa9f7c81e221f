"""How a replica leaves without a lost call: who has to hear of it, and in which order.

Tell the directory → serve on until every caller that said Hello has said Released → refuse, in a
way that is safe to repeat elsewhere → finish what runs → leave the directory → exit. (Order: after
linkerd's and Finagle's lessons with deregistration.) This module decides and counts; waiting,
stopping and the clock are the servers'.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Collection

from shoal.drainreport import DrainReport

# Callers hear of the change within a watch's time. Waited for even when nobody has said hello: a
# caller that holds the old list may be about to open its first connection.
NOTICE = 1.0
# How long refusals are given before the port closes, when somebody did not say goodbye.
REFUSING_TIME = 0.5
# What is left for goodbyes, refusals and health watches when no call of the service runs any more.
FAREWELL = 0.5
# Longest sleep between two steps: a signal's handler can't wake anybody.
STEP = 0.1
# Between two looks at who is still connected.
LOOK = 0.25


class Phase(enum.Enum):
    """Where a server is between its start and its end."""

    SERVING = "serving"
    # Told the directory; serves on while callers move away.
    LEAVING = "leaving"
    # Turns new calls away, in a way that callers know to be safe to repeat, while old ones finish.
    REFUSING = "refusing"
    # The port is closed; what still runs is finished, then cut off.
    STOPPING = "stopping"


class Roster:
    """Who may be calling this replica, and what runs. Safe from any thread.

    Args:
        changed: Called when a caller has left or a call has ended, while the replica leaves.
        connections: The peers that have a connection now; None where that can't be told.
    """

    def __init__(
        self,
        changed: Callable[[], object],
        connections: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        self.phase = Phase.SERVING
        self.refused = 0
        self.hellos = 0
        self._changed = changed
        self._connections = connections
        self._lock = threading.Lock()
        # Callers that said hello, with their peers; and all peers that ever did, for as long as
        # they are connected.
        self._callers: dict[str, str] = {}
        self._greeted: set[str] = set()
        self._sweep_at = 256
        self._released: dict[str, str] = {}
        self._gone: dict[str, str] = {}
        self._strangers: set[str] = set()
        self._unknown: set[str] = set()
        # One entry a running call: append and pop are atomic, which ``+= 1`` is not.
        self._running: list[None] = []

    def hello(self, caller_id: str, peer: str) -> None:
        """A caller may call over the connection ``peer``."""
        with self._lock:
            self.hellos += 1
            self._callers[caller_id] = peer
            self._greeted.add(peer)
            for heard in (self._released, self._gone):
                heard.pop(caller_id, None)
            self._strangers.discard(peer)
            crowded = len(self._greeted) >= self._sweep_at
        if crowded:
            # Callers that died without a goodbye must not pile up over a long life.
            self.look()
            self._sweep_at = max(256, 2 * len(self._greeted))

    def released(self, caller_id: str) -> None:
        """A caller has moved away."""
        with self._lock:
            peer = self._callers.pop(caller_id, None)
            if peer is not None and self.phase is not Phase.SERVING:
                self._released[caller_id] = peer
        self._wake()

    def begin(self) -> None:
        """A call's handler begins."""
        self._running.append(None)

    def end(self, *_: object) -> None:
        """The call is over, its answer sent."""
        self._running.pop()
        self._wake()

    def called(self, peer: str) -> None:
        """A call came in over ``peer`` while the replica was leaving."""
        with self._lock:
            if peer not in self._greeted:
                self._strangers.add(peer)

    def refuse(self) -> None:
        """A call was turned away."""
        with self._lock:
            self.refused += 1

    def look(self) -> None:
        """Notices callers whose connection has ended, and connections of nobody known.

        A caller that connected anew without a second hello still lives. So one is only gone when
        no connection from its host is left that could be its new one.
        """
        with self._lock:
            # A hello may come while the connections are being read, from one not among them yet.
            known, greeted = dict(self._callers), set(self._greeted)
        peers = self._connections()
        if peers is None:
            return
        with self._lock:
            loose = {peer for peer in peers if peer not in self._greeted}
            hosts = {_host(peer) for peer in loose}
            for caller, peer in known.items():
                lives = peer in peers or _host(peer) in hosts or self._callers.get(caller) != peer
                if not lives:
                    del self._callers[caller]
                    if self.phase is not Phase.SERVING:
                        self._gone[caller] = peer
            self._greeted -= greeted.difference(peers, self._callers.values())
            if self.phase is not Phase.SERVING:
                self._unknown = loose

    @property
    def remaining(self) -> int:
        """Callers that said hello and have not left."""
        return len(self._callers)

    @property
    def strangers(self) -> int:
        """Connections that never said hello and were called over while the replica was leaving."""
        return len(self._strangers)

    @property
    def running(self) -> int:
        """Calls of the service that run now; health, reflection and hellos are not counted."""
        return len(self._running)

    def report(self, *, unfinished: int, seconds: float) -> DrainReport:
        """What has been seen."""
        with self._lock:
            return DrainReport.of(
                confirmed=self._released,
                silent=self._callers,
                gone=self._gone,
                unknown=self._unknown | self._strangers,
                refused=self.refused,
                unfinished=unfinished,
                seconds=seconds,
            )

    def _wake(self) -> None:
        if self.phase is not Phase.SERVING:
            self._changed()


class Drain:
    """Says when a drain moves on. Pure but for the roster that it reads; told the time.

    Args:
        roster: Whose phase it sets.
        now: Seconds, monotonic, as in all that follows.
        linger: Most seconds for callers to move away, from when they were told.
        grace: Most seconds for calls in flight to end after that.
    """

    def __init__(self, roster: Roster, now: float, *, linger: float, grace: float) -> None:
        self.roster = roster
        self.hurried = False
        self._unfinished = 0
        self._began = now
        self._linger = linger
        self._grace = grace
        self._told: float | None = None
        self._since = now
        self._look_at = now
        self._idle_since: float | None = None
        roster.phase = Phase.LEAVING

    def told(self, now: float) -> None:
        """The directory has the news, so callers will. Without it nobody is waited for."""
        self._told = now

    def hurry(self) -> None:
        """Somebody asked a second time: no more waiting."""
        self.hurried = True

    def step(self, now: float) -> float | None:
        """Moves on if it is time; most seconds until the next step, None when the port may close.

        The roster's ``changed`` means: step at once.
        """
        roster = self.roster
        if roster.phase is Phase.LEAVING and self._everybody_left(now):
            roster.phase = Phase.REFUSING
            self._since = now
        if roster.phase is Phase.REFUSING and self._nothing_runs(now):
            roster.phase = Phase.STOPPING
        return None if roster.phase is Phase.STOPPING else STEP

    def due(self, now: float) -> bool:
        """Whether it is time for another `Roster.look`, which may take some milliseconds."""
        if self.roster.phase is not Phase.LEAVING or now < self._look_at:
            return False
        self._look_at = now + LOOK
        return True

    def rest(self, now: float) -> float:
        """Seconds for grpc's own stop when the port closes; more than enough, for `cut` decides."""
        if self.hurried:
            self._count_unfinished()
            return 0.0
        return max(0.0, self._since + self._grace - now) + 10.0 * FAREWELL

    def cut(self, now: float) -> bool:
        """After the port has closed: whether what is still open is to be cut off now.

        No call of the service is, before its grace ends. But health watches and the like, which
        never end by themselves, must not hold the exit up.
        """
        if self.roster.running:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        idle = self._idle_since is not None and now - self._idle_since >= FAREWELL
        if idle or self.hurried or now >= self._since + max(self._grace, FAREWELL):
            self._count_unfinished()
            return True
        return False

    def ended(self, now: float) -> DrainReport:
        """The report."""
        return self.roster.report(unfinished=self._unfinished, seconds=now - self._began)

    def _count_unfinished(self) -> None:
        self._unfinished = max(self._unfinished, self.roster.running)

    def _everybody_left(self, now: float) -> bool:
        if self.hurried or self._told is None:
            return True
        waited = now - self._told
        if waited >= self._linger:
            return True
        return waited >= NOTICE and not self.roster.remaining and not self.roster.strangers

    def _nothing_runs(self, now: float) -> bool:
        waited = now - self._since
        if self.hurried or waited >= self._grace:
            return True
        if self.roster.running:
            return False
        # Somebody may still come, and is better refused than cut off.
        expected = self.roster.remaining or self.roster.strangers
        return not expected or waited >= REFUSING_TIME


def _host(peer: str) -> str:
    return peer.rpartition(":")[0]
