"""Group membership: who is there, of which flavor, for processes that serve nobody.

What serves is announced in the directory, which is a group with addresses. This is for the rest:
workers that pull, shards of a computation, whoever others need to know of and nobody calls.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Self

from kazoo.exceptions import KazooException, NoNodeError

from shoal import forks
from shoal.directory import Directory, check_name
from shoal.errors import CoordinationTimeoutError
from shoal.recipes.desk import Desk
from shoal.recipes.kept import Kept, read
from shoal.recipes.meeting import GOODBYE, give_up, wait_for
from shoal.recipes.steps import Bell, Script, Steps
from shoal.recipes.waits import pause

logger = logging.getLogger(__name__)

# Nodes read at once.
READS_AT_ONCE = 20
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a group.

    Attributes:
        id: Its name in the group.
        flavor: What kind it is.
        facts: What else it says of itself.
    """

    id: str
    flavor: str = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: NOTHING, hash=False)


Members = tuple[Member, ...]


def group_path(name: str) -> str:
    """Where a group's members have their nodes, below the chroot.

    Raises:
        ValueError: the name can't be a node's.
    """
    check_name(name)
    return f"/groups/{name}"


class GroupWatch:
    """A group as this process sees it, shared by blocking and asyncio code.

    The last set is held while ZooKeeper is away. With every change all members are read: a group
    has tens of them. What serves in hundreds is announced in the directory.

    Args:
        desk: Of the process.
        path: Of the members' parent, chroot included.
    """

    def __init__(self, desk: Desk, path: str) -> None:
        self.members: Members | None = None
        self._desk = desk
        self._path = path
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Members], object]] = []
        self._following: Steps[None] = desk.run(self._follow())

    def subscribe(self, listener: Callable[[Members], object]) -> Callable[[], None]:
        """Calls ``listener`` with every new whole set, and at once with the one that is known.

        On a thread of the directory's, which it must not block. Returns the call that ends it.
        """
        with self._lock:
            self._listeners.append(listener)
            known = self.members
        if known is not None:
            self._tell(listener, known)

        def end() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end

    def close(self) -> None:
        """Follows no longer."""
        self._desk.worker.call_soon(self._following.stop)

    def _follow(self) -> Script[None]:
        tries = 0
        while True:
            yield from self._desk.until_connected()
            bell = Bell()
            try:
                found = yield from self._look(bell)
            except KazooException as error:
                tries += 1
                logger.info("%s: looking again after %r", self._path, error)
                yield pause(tries)
                continue
            tries = 0
            with self._lock:
                changed = found != self.members
                self.members = found
                listeners = tuple(self._listeners)
            for each in listeners if changed else ():
                self._tell(each, found)
            yield bell

    def _look(self, bell: Bell) -> Script[Members]:
        client = self._desk.client
        while True:
            try:
                names = yield client.get_children_async(self._path, watch=bell.ring)
                break
            except NoNodeError:
                yield client.ensure_path_async(self._path)
        found = []
        for start in range(0, len(names), READS_AT_ONCE):
            asked = [
                (name, client.get_async(f"{self._path}/{name}"))
                for name in names[start : start + READS_AT_ONCE]
            ]
            for name, answer in asked:
                try:
                    data, _ = yield answer
                except NoNodeError:
                    continue  # It has left meanwhile; the list's watch tells.
                found.append(_member(name, read(data)))
        return tuple(sorted(found, key=lambda each: each.id))

    def _tell(self, listener: Callable[[Members], object], members: Members) -> None:
        try:
            listener(members)
        except Exception:
            logger.exception("a listener of %s failed", self._path)


def _member(name: str, facts: Mapping[str, Any]) -> Member:
    said = facts.get("facts")
    return Member(
        name,
        str(facts.get("flavor", "")),
        MappingProxyType(dict(said)) if isinstance(said, dict) else NOTHING,
    )


def of_flavor(members: Members | None, flavor: str | None) -> Members:
    """Those of a flavor; all when it is None."""
    return tuple(each for each in members or () if flavor is None or each.flavor == flavor)


class Group:
    """Who is there, by flavor.

        group = shoal.Group(directory, "workers")
        with group.join("worker-7", flavor="gpu", facts={"memory": 80}):
            group.wait(3, flavor="gpu", timeout=60.0)

    Args:
        directory: Whose session and chroot.
        name: Of the group; members' nodes are below ``/groups/NAME``.
    """

    def __init__(self, directory: Directory, name: str) -> None:
        self._path = group_path(name)
        self.name = name
        self._directory = directory
        self._lock = threading.Lock()
        self._watch: GroupWatch | None = None
        forks.on_fork(self)

    def join(
        self,
        id: str,  # noqa: A002 - as a replica has it
        *,
        flavor: str = "",
        facts: Mapping[str, Any] = NOTHING,
        timeout: float | None = None,
    ) -> Membership:
        """Is a member from now on, over lost sessions too; returns when ZooKeeper has it.

        Args:
            id: The member's name, unique within the group.
            flavor: Its kind, by which others may look for it.
            facts: As JSON can hold them.
            timeout: Seconds; None: for as long as ZooKeeper is away.

        Raises:
            CoordinationError: a living member has this id.
            CoordinationTimeoutError: ZooKeeper did not take it within ``timeout`` seconds.
        """
        check_name(id)
        desk = self._directory.desk()
        said = {"flavor": flavor, "facts": dict(facts)}
        kept = Kept(desk, f"{desk.chroot}{self._path}/{id}", said)
        try:
            wait_for(self._directory, kept, timeout)
        except BaseException:
            give_up(self._directory, kept)
            raise
        return Membership(kept)

    def members(self, flavor: str | None = None) -> Members:
        """The last set that is known, sorted by id; empty before the first answer."""
        return of_flavor(self.watch().members, flavor)

    def subscribe(self, listener: Callable[[Members], object]) -> Callable[[], None]:
        """Calls ``listener`` with every new whole set; see `GroupWatch.subscribe`."""
        return self.watch().subscribe(listener)

    def wait(
        self, count: int, *, flavor: str | None = None, timeout: float | None = None
    ) -> Members:
        """Waits until at least ``count`` are there, and returns them.

        Args:
            count: How many.
            flavor: Only those of this kind count; None: all.
            timeout: Seconds; None: without end.

        Raises:
            CoordinationTimeoutError: there were fewer within ``timeout`` seconds.
        """
        enough = threading.Event()

        def look(members: Members) -> None:
            if len(of_flavor(members, flavor)) >= count:
                enough.set()

        end = self.subscribe(look)
        try:
            if not enough.wait(timeout):
                raise CoordinationTimeoutError(
                    f"group {self.name!r} had {len(self.members(flavor))} members and not {count} "
                    f"after {timeout or 0.0:g} s; ZooKeeper is {self._directory.describe()}"
                )
        finally:
            end()
        return self.members(flavor)

    def close(self) -> None:
        """Follows the group no longer, until it is asked again; memberships stay. Idempotent.

        The directory's end does the same; this is for who looks at many groups, one after another.
        """
        with self._lock:
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def watch(self) -> GroupWatch:
        """What follows the group; made at the first use, and again in a forked child."""
        with self._lock:
            if self._watch is None:
                desk = self._directory.desk()
                self._watch = GroupWatch(desk, f"{desk.chroot}{self._path}")
            return self._watch

    def after_fork(self) -> None:
        """In a forked child: it looks for itself."""
        self._lock = threading.Lock()
        self._watch = None


class Membership:
    """One's own place in a group, until `leave` or the end of the ``with`` block."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self, timeout: float = GOODBYE) -> bool:
        """Leaves; whether the node was gone within ``timeout`` seconds. Idempotent."""
        try:
            self._kept.leave().result(timeout)
        except TimeoutError:
            return False
        return True
