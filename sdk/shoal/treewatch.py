"""The nodes below one node, watched to a certain depth, held through outages of ZooKeeper.

kazoo's own watchers stop for ever when their node is missing or goes (kazoo#153), and tell names
without data (kazoo#459). Here a node that is missing is waited for; each read sets the watch for
the next change, so that the last of several quick changes is always seen; and what was told while
the connection was away is found by reading everything again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from kazoo.exceptions import KazooException, NoNodeError
from kazoo.protocol.states import EventType

from shoal import forks
from shoal.directory import Directory
from shoal.errors import CoordinationTimeoutError, DirectoryClosedError
from shoal.recipes.desk import Desk
from shoal.recipes.steps import Bell, Script, Steps

logger = logging.getLogger(__name__)

# Nodes read at once, and the spread in seconds of what all watchers read after a reconnect.
READS_AT_ONCE = 20
STORM_JITTER = 0.3
# Between full reads, seconds, ±20 %: should a watch ever be lost, its news are not.
RESYNC = 120.0
# Between tries when ZooKeeper answers with an error: doubled from the first to the last, seconds.
RETRY_FIRST, RETRY_LAST = 0.2, 10.0


@dataclass(frozen=True, slots=True)
class Leaf:
    """A node at the depth that is watched.

    Attributes:
        data: Its bytes; empty when only names are watched.
        version: How often the data was changed; for compare-and-set.
    """

    data: bytes = b""
    version: int = 0


Tree = Mapping[str, Leaf]
Listener = Callable[[Tree], object]


class TreeWatch:
    """Follows the nodes at one depth below a node: a whole immutable set at each change.

        watch = TreeWatch(directory, "/keys", depth=2, data=True)
        watch.wait(10.0)
        watch.tree["alice/laptop"].data

    It looks on the thread of the recipes and blocks nobody. While ZooKeeper is away the last set
    holds; `fresh` says whether it is being watched now.

    Args:
        directory: Whose session and chroot.
        path: The node, below the chroot; it may be missing, and is not made.
        depth: 1 for the children, 2 for theirs.
        data: Whether the data is read too, and its changes are told.
        rng: Spreads reads over time.
        clock: Monotonic seconds.

    Attributes:
        path: The node, below the chroot.

    Raises:
        DirectoryClosedError: the directory was closed.
    """

    def __init__(
        self,
        directory: Directory,
        path: str,
        *,
        depth: int = 1,
        data: bool = False,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if depth < 1 or not path.startswith("/") or path == "/":
            raise ValueError(f"a path below the chroot and a depth from 1, not {path!r}, {depth}")
        self.path = path.rstrip("/")
        self._directory = directory
        self._depth = depth
        self._data = data
        self._rng = rng or random.Random()  # noqa: S311 - it spreads load, it keeps no secret
        self._clock = clock
        self._confirmed_at: float | None = None
        self._tree: Tree | None = None
        self._desk: Desk | None = None
        self._steps: Steps[None] | None = None
        self._stopped = False
        self._begin_process()
        self.begin()
        forks.on_fork(self)

    def __repr__(self) -> str:
        return f"<TreeWatch {self.path} {'unknown' if self._tree is None else len(self._tree)}>"

    @property
    def known(self) -> bool:
        """Whether ZooKeeper has told of the set at least once."""
        return self._tree is not None

    @property
    def fresh(self) -> bool:
        """Whether the set is watched now: any change of it would be told."""
        return self._fresh and self._desk is not None and self._desk.session.connected

    @property
    def age(self) -> float | None:
        """Seconds since any change would have been told: 0.0 while watched, None if never."""
        if self._fresh:
            return 0.0
        confirmed = self._confirmed_at
        return None if confirmed is None else max(0.0, self._clock() - confirmed)

    @property
    def tree(self) -> Tree:
        """The last set, by path below the node: ``alice/laptop``. Empty before the first answer."""
        return self._tree if self._tree is not None else _NOTHING

    def wait(self, timeout: float = 10.0) -> Tree:
        """Waits for the first answer and returns it.

        Raises:
            TimeoutError: it did not come within ``timeout`` seconds; says how ZooKeeper is.
        """
        self.begin()
        if not self._first.wait(timeout):
            raise CoordinationTimeoutError(
                f"{self.path} was not read within {timeout:g} s; ZooKeeper is "
                f"{self._directory.describe()}"
            )
        return self.tree

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` with every new set, and at once with the current one, if known.

        On a thread of the directory's that it must not block. Returns what ends it.
        """
        with self._lock:
            self._listeners.append(listener)
            if self._tree is not None:
                self._tell(listener, self._tree)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def begin(self) -> None:
        """Begins to look, unless it does; in a forked child it must be called again."""
        with self._lock:
            if self._steps is not None or self._stopped:
                return
            desk = self._desk = self._directory.desk()
            self._steps = desk.run(self._follow(desk))
            self._steps.outcome.add_done_callback(self._ended)

    def stop(self) -> None:
        """Looks no more; the last set is kept. Idempotent."""
        with self._lock:
            self._stopped = True
            self._fresh = False
            self._listeners.clear()
            steps, self._steps = self._steps, None
        if steps is not None and self._desk is not None:
            self._desk.worker.call_soon(steps.stop)

    def after_fork(self) -> None:
        """In a forked child: the session, and so the watches, are the parent's."""
        self._begin_process()

    def _begin_process(self) -> None:
        self._lock = threading.RLock()
        self._listeners: list[Listener] = []
        self._first = threading.Event()
        if self._tree is not None:
            self._first.set()
        self._desk = self._steps = None
        self._bell = Bell()
        self._fresh = False
        # What is known, and what of it has to be read again; the recipes' thread's alone.
        self._children: dict[str, tuple[str, ...]] = {}
        self._leaves: dict[str, Leaf] = {}
        self._stale: set[str] = {""}

    def _ended(self, outcome: Future[None]) -> None:
        if outcome.cancelled():
            return
        error = outcome.exception()
        if error is not None and not isinstance(error, DirectoryClosedError):
            logger.error("%s is not watched any more", self.path, exc_info=error)

    # All below runs on the recipes' thread, but for the body of `_watch`.

    def _follow(self, desk: Desk) -> Script[None]:
        root = f"{desk.chroot}{self.path}"
        failures = 0
        self._plan_resync(desk)
        while True:
            if not desk.session.connected:
                yield from desk.until_connected()
                if self.known:
                    yield self._rng.uniform(0.0, STORM_JITTER)
            bell = self._bell = Bell()
            try:
                yield from self._read(desk, root)
            except KazooException as error:
                self._forget()
                delay = min(RETRY_LAST, RETRY_FIRST * 2.0**failures)
                failures += 1
                # A connection that broke in the middle comes back by itself, and is told elsewhere.
                if desk.session.connected:
                    logger.warning(
                        "%s could not be read (%r); the last set is kept, next try in %.1f s",
                        root,
                        error,
                        delay,
                    )
                yield delay * self._rng.uniform(0.8, 1.2)
                continue
            failures = 0
            self._conclude()
            if not self._stale:
                yield bell

    def _read(self, desk: Desk, root: str) -> Script[None]:
        # Level by level: the lists of one say what there is at the next.
        for level in range(self._depth):
            lists = sorted(each for each in self._stale if _level(each) == level)
            for start in range(0, len(lists), READS_AT_ONCE):
                batch = lists[start : start + READS_AT_ONCE]
                self._stale.difference_update(batch)
                asked = [
                    (each, desk.client.get_children_async(_join(root, each), watch=self._watch))
                    for each in batch
                ]
                for each, result in asked:
                    yield from self._list(desk, root, each, result)
        yield from self._read_leaves(desk, root)

    def _list(self, desk: Desk, root: str, path: str, result: Any) -> Script[None]:
        try:
            names = tuple(sorted((yield result)))
        except NoNodeError:
            names = ()
            if path:
                # Gone since its parent was listed; the parent's watch tells, or has told.
                self._prune(path, names)
                self._children.pop(path, None)
                return
            # A missing node can't be watched for children: watch for its coming.
            if (yield desk.client.exists_async(root, watch=self._watch)) is not None:
                self._stale.add("")
        if set(self._children.get(path, ())).difference(names):
            self._prune(path, names)
        self._children[path] = names
        below = [_join(path, name) if path else name for name in names]
        if _level(path) + 1 < self._depth:
            self._stale.update(each for each in below if each not in self._children)
        elif self._data:
            self._stale.update(each for each in below if each not in self._leaves)
        else:
            self._leaves.update((each, Leaf()) for each in below if each not in self._leaves)

    def _read_leaves(self, desk: Desk, root: str) -> Script[None]:
        leaves = sorted(each for each in self._stale if _level(each) == self._depth)
        for start in range(0, len(leaves), READS_AT_ONCE):
            batch = leaves[start : start + READS_AT_ONCE]
            self._stale.difference_update(batch)
            get = desk.client.get_async
            asked = [(each, get(_join(root, each), watch=self._watch)) for each in batch]
            for each, result in asked:
                try:
                    data, stat = yield result
                except NoNodeError:
                    self._leaves.pop(each, None)
                else:
                    self._leaves[each] = Leaf(data, stat.version)

    def _prune(self, path: str, names: Iterable[str]) -> None:
        # What is no longer listed is gone, with all below it.
        kept = set(names)
        prefix = f"{path}/" if path else ""

        def gone(each: str) -> bool:
            below = each.removeprefix(prefix)
            return each.startswith(prefix) and each != "" and below.split("/")[0] not in kept

        for known in (self._children, self._leaves):
            for each in [each for each in known if gone(each)]:
                del known[each]
        self._stale = {each for each in self._stale if not gone(each)}

    def _watch(self, event: Any) -> None:
        # On kazoo's event thread. When the connection goes, kazoo calls all watches with an event
        # of no type and no path, and has dropped them.
        desk = self._desk
        if desk is not None:
            desk.worker.call_soon(lambda: self._mark(desk, event.type, event.path))

    def _mark(self, desk: Desk, kind: str, path: str | None) -> None:
        if desk is not self._desk:
            return
        if kind == EventType.NONE or path is None:
            self._forget()
        else:
            each = path.removeprefix(f"{desk.chroot}{self.path}").lstrip("/")
            # Also what is not known yet: its answer may be here and not looked at.
            if _level(each) < self._depth or self._data:
                self._stale.add(each)
            # A deleted node may be there anew already, under the same name.
            if kind == EventType.DELETED and each:
                self._stale.add(each.rpartition("/")[0])
        self._bell.ring()

    def _forget(self) -> None:
        if self._fresh:
            self._confirmed_at = self._clock()
        self._fresh = False
        self._stale = {"", *self._children}
        if self._data:
            self._stale.update(self._leaves)

    def _plan_resync(self, desk: Desk) -> None:
        def resync() -> None:
            if desk is self._desk and not self._stopped:
                self._forget()
                self._bell.ring()
                self._plan_resync(desk)

        desk.worker.call_later(RESYNC * self._rng.uniform(0.8, 1.2), resync)

    def _conclude(self) -> None:
        # Before it is said: whoever sees the one must see the other.
        self._confirmed_at = self._clock()
        self._fresh = not self._stale
        tree: Tree = MappingProxyType(dict(sorted(self._leaves.items())))
        with self._lock:
            changed = self._tree is None or dict(tree) != dict(self._tree)
            if changed:
                self._tree = tree
                self._first.set()
                for listener in tuple(self._listeners):
                    self._tell(listener, tree)

    def _tell(self, listener: Listener, tree: Tree) -> None:
        try:
            listener(tree)
        except Exception:
            # One listener's fault must not keep the news from the others.
            logger.exception("a listener of %s failed", self.path)


_NOTHING: Tree = MappingProxyType({})


def _level(path: str) -> int:
    return path.count("/") + 1 if path else 0


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if name else path
