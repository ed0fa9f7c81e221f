"""One service's replicas, read from ZooKeeper, watched, and held through its outages."""

from __future__ import annotations

import logging
import random
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from kazoo.exceptions import KazooException, NoNodeError
from kazoo.protocol.states import EventType

from shoal import instance
from shoal.belief import Belief, Vanished, believe
from shoal.diskcache import DiskCache
from shoal.errors import InstanceFormatError
from shoal.session import Session
from shoal.watching import SetWatch
from shoal.worker import Worker
from shoal_balancer import Replica

logger = logging.getLogger(__name__)

# Nodes read at once, and the spread in seconds of the reads that all callers have to do at the
# same moment, after a reconnect (anchors/balancing.md, lesson 8).
READS_AT_ONCE = 20
STORM_JITTER = 0.5
# Nodes that a resync reads beside the list, each time others. To read all would be 17 reads a
# second for each caller of 1000 replicas, for ever, and for what watches have told already.
RESYNC_NODES = 50
# How long ZooKeeper's first answer is preferred to the snapshot on disk, seconds.
PREFER_LIVE = 0.5
# Between tries when ZooKeeper answers with an error: doubled from the first to the last, seconds.
RETRY_FIRST, RETRY_LAST = 0.5, 10.0
# Least time between two snapshots on disk, for sets that change all the time, seconds.
SAVE_EVERY = 1.0
# Names of unreadable nodes in one warning.
NAMED_AT_MOST = 10


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it was read: which version of it, and the replica unless it can't be read."""

    mzxid: int
    replica: Replica | None


class ServiceWatch(SetWatch):
    """One service's replicas as this process sees them.

    What is known of the nodes belongs to the directory's worker thread: it alone reads, and
    watches, which fire on ZooKeeper's event thread, only tell it what to read again. A node is read
    again when its own watch says so, after a reconnect (which drops watches), and in its turn: a
    resync reads the list and some of the nodes.

    Args:
        service: The service's name.
        path: Of its parent node, chroot included.
        cache: Where good sets are kept for starts without ZooKeeper.
        resync_every: Seconds between resyncs, ±20 %; for what no watch told.
        state: The session's state for a person.
        rng: Spreads reads over time.
    """

    def __init__(
        self,
        service: str,
        path: str,
        *,
        cache: DiskCache,
        resync_every: float,
        state: Callable[[], str],
        rng: random.Random,
    ) -> None:
        super().__init__(service, path)
        self._cache = cache
        self._resync_every = resync_every
        self._state = state
        self._rng = rng
        self._loaded_age: float | None = None
        self._loaded_at = 0.0
        self._confirmed_at: float | None = None
        self._held_since: float | None = None

    def begin(self, session: Session, worker: Worker) -> None:
        """Starts to look: ZooKeeper's answer is preferred, the disk's is taken when it is late."""
        self._session = session
        self._worker = worker
        self._nodes: dict[str, Node] = {}
        self._stale: set[str] = set()
        self._list_is_stale = True
        self._planned = False
        self._failures = 0
        self._save_planned = False
        self._saved_at = float("-inf")
        self._resynced = ""
        self._vanished = Vanished()
        self._plan(0.0)
        worker.call_later(PREFER_LIVE, self._fall_back)
        self._plan_resync()

    def reread(self, *, spread: bool = False) -> None:
        """Has everything read again, soon; ``spread`` over a moment when all callers do so."""
        wait = self._rng.uniform(0.0, STORM_JITTER) if spread and self.known else 0.0
        self._worker.call_later(wait, self._reread)

    @property
    def held(self) -> bool:
        """Whether the set is held although ZooKeeper shows none of it (see `shoal.belief`)."""
        return self._held_since is not None

    @property
    def age(self) -> float | None:
        """Seconds since ZooKeeper last confirmed the set: 0.0 while it is watched, None if never.

        A set from disk counts from when it was saved.
        """
        now = time.monotonic()
        if self._held_since is not None:
            return now - self._held_since
        if self._confirmed_at is not None:
            return 0.0 if self._watched else now - self._confirmed_at
        if self._loaded_age is not None:
            return self._loaded_age + now - self._loaded_at
        return None

    def describe(self) -> str:
        """The session's state, how many replicas there are, and how old that knowledge is."""
        count, age = len(self.replicas()), self.age
        if age is None:
            return f"{self._state()}; never read, and no snapshot on disk"
        if self.held:
            return f"{self._state()}; none announced for {age:.1f} s, the last {count} held"
        if self._confirmed_at is None:
            return f"{self._state()}; {count} replicas from the snapshot on disk, {age:.0f} s old"
        if age == 0.0:
            return f"{self._state()}; {count} replicas"
        return f"{self._state()}; set of {count} replicas held, confirmed {age:.1f} s ago"

    # All below runs on the worker thread, but for _noticed.

    @property
    def _watched(self) -> bool:
        return self._session.connected and not self._list_is_stale and not self._stale

    def _plan(self, delay: float) -> None:
        # Many events before the read are one read.
        if not self._planned:
            self._planned = True
            self._worker.call_later(delay, self._refresh)

    def _plan_resync(self) -> None:
        delay = self._resync_every * self._rng.uniform(0.8, 1.2)
        self._worker.call_later(delay, self._resync)

    def _resync(self) -> None:
        names = sorted(self._nodes)
        after = bisect_right(names, self._resynced)
        due = (names[after:] + names[:after])[:RESYNC_NODES]
        self._resynced = due[-1] if due else ""
        self._list_is_stale = True
        self._stale.update(due)
        self._plan(0.0)
        self._plan_resync()

    def _reread(self) -> None:
        self._list_is_stale = True
        self._stale.update(self._nodes)
        self._plan(0.0)

    def _fall_back(self) -> None:
        if self.known:
            return
        loaded = self._cache.load(self.service)
        if loaded is None:
            return
        replicas, self._loaded_age = loaded
        self._loaded_at = time.monotonic()
        logger.warning(
            "%s: ZooKeeper is %s; starting from the snapshot on disk, %.0f s old, %d replicas",
            self.path,
            self._state(),
            self._loaded_age,
            len(replicas),
        )
        self.publish(replicas)

    def _noticed(self, event: Any) -> None:
        # On ZooKeeper's event thread. When the connection goes, kazoo calls all watches with an
        # event of no type and no path; the reconnect reads everything.
        if event.type != EventType.NONE:
            self._worker.call_soon(partial(self._mark, event.type, event.path))

    def _mark(self, kind: str, path: str) -> None:
        if path != self.path:
            # A deleted node may be there anew already, under the same name.
            self._stale.add(path.rpartition("/")[2])
        if path == self.path or kind == EventType.DELETED:
            self._list_is_stale = True
        self._plan(0.0)

    def _refresh(self) -> None:
        self._planned = False
        if not self._session.connected:
            return  # The next connect reads everything; the last good set stays.
        try:
            self._read()
        except KazooException as error:
            delay = min(RETRY_LAST, RETRY_FIRST * 2.0**self._failures)
            self._failures += 1
            # A connection that broke in the middle is told of elsewhere, and comes back by itself.
            if self._session.connected:
                logger.warning(
                    "%s could not be read (%r); the last good set is kept, next try in %.1f s",
                    self.path,
                    error,
                    delay,
                )
            self._list_is_stale = True
            self._stale.update(self._nodes)
            self._plan(delay * self._rng.uniform(0.8, 1.2))
        else:
            self._failures = 0

    def _read(self) -> None:
        # Watches are set by the reads: what changes from here on is told.
        if self._list_is_stale:
            names = self._names()
            self._list_is_stale = False
            self._nodes = {name: self._nodes[name] for name in names if name in self._nodes}
            self._stale.intersection_update(names)
            self._stale.update(name for name in names if name not in self._nodes)
        unreadable: dict[str, str] = {}
        for name, read in self._reads(sorted(self._stale)):
            try:
                data, stat = self._session.wait(read)
            except NoNodeError:
                # Gone since the list was read. The list's watch will tell, or has told.
                self._nodes.pop(name, None)
            else:
                known = self._nodes.get(name)
                if known is None or known.mzxid != stat.mzxid:
                    self._nodes[name] = Node(stat.mzxid, self._decoded(name, data, unreadable))
            self._stale.discard(name)
        self._warn(unreadable)
        self._conclude()

    def _names(self) -> list[str]:
        client, wait = self._session.client, self._session.wait
        for _ in range(3):
            try:
                return list(wait(client.get_children_async(self.path, watch=self._noticed)))
            except NoNodeError:
                # A missing parent can't be watched for children (kazoo#153 gives up here), but for
                # its coming. Who looks does not make it: a service that was removed stays so.
                if wait(client.exists_async(self.path, watch=self._noticed)) is None:
                    return []
        raise KazooException(f"{self.path} is deleted as often as it is made")

    def _reads(self, names: list[str]) -> Iterator[tuple[str, Any]]:
        get = self._session.client.get_async
        for start in range(0, len(names), READS_AT_ONCE):
            batch = names[start : start + READS_AT_ONCE]
            yield from [(name, get(f"{self.path}/{name}", watch=self._noticed)) for name in batch]

    def _decoded(self, name: str, data: bytes, unreadable: dict[str, str]) -> Replica | None:
        try:
            return instance.decode(data)
        except InstanceFormatError as error:
            unreadable[name] = str(error)
            return None

    def _warn(self, unreadable: dict[str, str]) -> None:
        # Once for each version of a node: what was read stays known until it changes.
        if not unreadable:
            return
        named = [f"{name} ({why})" for name, why in unreadable.items()]
        more = f" and {len(named) - NAMED_AT_MOST} more" if len(named) > NAMED_AT_MOST else ""
        logger.warning(
            "%s: passed over what is not a registration: %s%s",
            self.path,
            "; ".join(named[:NAMED_AT_MOST]),
            more,
        )

    def _conclude(self) -> None:
        now = time.monotonic()
        observed = tuple(node.replica for node in self._nodes.values() if node.replica)
        had = self.replicas()
        if observed:
            self._vanished.note(had, observed, now)
        belief = believe(had, observed, self._vanished.replicas)
        self._hold(belief, now)
        self._confirmed_at = now
        self.publish(belief.replicas)
        # What is held is on disk already; and an empty set that was never otherwise may be an
        # outage's, which must not wipe what the next caller starts from. Else it is saved also
        # when nothing changed: its age counts from the last time that it was confirmed.
        if not belief.held and (had or observed):
            self._save_soon(now)

    def _save_soon(self, now: float) -> None:
        if self._save_planned:
            return
        self._save_planned = True
        self._worker.call_later(max(0.0, self._saved_at + SAVE_EVERY - now), self._save)

    def _save(self) -> None:
        self._save_planned = False
        self._saved_at = time.monotonic()
        if not self.held:
            self._cache.save(self.service, self.replicas())

    def _hold(self, belief: Belief, now: float) -> None:
        if belief.held and self._held_since is None:
            self._held_since = now
            logger.warning(
                "%s: no replica is announced any more and none of the last %d had said that it was "
                "leaving; they are held",
                self.path,
                len(belief.replicas),
            )
        elif not belief.held:
            self._held_since = None
