"""Barriers: many wait until something is opened, or until all are there and all are done.

Source: the ZooKeeper recipes; the double barrier is that of the paper's section 2.4 (Hunt et al.,
USENIX ATC 2010), with a list of names in its ready node, so that one that was left behind by
processes which have all died does not open the next round.
"""

from __future__ import annotations

import json
import uuid
from types import TracebackType
from typing import Self

from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

from shoal.directory import Directory, check_name
from shoal.errors import CoordinationError
from shoal.recipes.desk import Desk
from shoal.recipes.kept import Kept
from shoal.recipes.meeting import give_up
from shoal.recipes.steps import Bell, Script
from shoal.recipes.waits import patient, wait

READY = "ready"
MEMBERS = "members"


def barrier_path(name: str) -> str:
    """Where a barrier's nodes are, below the chroot.

    Raises:
        ValueError: the name can't be a node's.
    """
    check_name(name)
    return f"/barriers/{name}"


def closed(desk: Desk, path: str) -> Script[bool]:
    """Closes a barrier; whether it was open."""

    def attempt() -> Script[bool]:
        try:
            yield desk.client.create_async(path, b"", makepath=True)
        except NodeExistsError:
            return False
        return True

    return (yield from patient(desk, path, attempt))


def opened(desk: Desk, path: str) -> Script[bool]:
    """Opens a barrier; whether it was closed."""

    def attempt() -> Script[bool]:
        try:
            yield desk.client.delete_async(path)
        except NoNodeError:
            return False
        return True

    return (yield from patient(desk, path, attempt))


def passed(desk: Desk, path: str) -> Script[None]:
    """Waits until a barrier is open."""

    def attempt() -> Script[None]:
        while True:
            bell = Bell()
            try:
                # get and not exists, which would leave a watch behind on a node that is not there.
                yield desk.client.get_async(path, watch=bell.ring)
            except NoNodeError:
                return
            yield bell
            yield from desk.until_connected()

    yield from patient(desk, path, attempt)


class Barrier:
    """Closed by one, waited at by many, opened by anybody.

        barrier = shoal.Barrier(directory, "migration")
        barrier.close()         # here
        barrier.wait(60.0)      # there
        barrier.open()          # and here again: all go on

    Args:
        directory: Whose session and chroot.
        name: Of the barrier; it is closed while there is a node ``/barriers/NAME``, which stays
            there whoever dies.
    """

    def __init__(self, directory: Directory, name: str) -> None:
        self._path = barrier_path(name)
        self.name = name
        self._directory = directory

    def close(self, timeout: float = 10.0) -> bool:
        """Whoever waits from now on does not pass; whether it was open.

        Raises:
            CoordinationTimeoutError: ZooKeeper did not take it within ``timeout`` seconds.
        """
        return wait(
            self._directory,
            f"the closing of barrier {self.name!r}",
            lambda desk: closed(desk, f"{desk.chroot}{self._path}"),
            timeout,
        )

    def open(self, timeout: float = 10.0) -> bool:
        """All who wait pass; whether it was closed.

        Raises:
            CoordinationTimeoutError: ZooKeeper did not take it within ``timeout`` seconds.
        """
        return wait(
            self._directory,
            f"the opening of barrier {self.name!r}",
            lambda desk: opened(desk, f"{desk.chroot}{self._path}"),
            timeout,
        )

    def wait(self, timeout: float | None = None) -> None:
        """Waits until it is open.

        Raises:
            CoordinationTimeoutError: it was not within ``timeout`` seconds.
        """
        wait(
            self._directory,
            f"the wait at barrier {self.name!r}",
            lambda desk: passed(desk, f"{desk.chroot}{self._path}"),
            timeout,
        )


def seat(desk: Desk, path: str) -> Kept:
    """The node of a participant that wants to enter."""
    return Kept(desk, f"{path}/{MEMBERS}/{uuid.uuid4().hex}", {}, per_session=True)


def entered(desk: Desk, path: str, mine: Kept, count: int) -> Script[None]:
    """Waits until ``count`` are there, we among them.

    Nobody watches the list of who is there: whoever comes last sees that all are, and says so in
    one node that the others watch.
    """
    yield from mine.arrived()

    def attempt() -> Script[None]:
        while True:
            bell = Bell()
            names = yield desk.client.get_children_async(f"{path}/{MEMBERS}")
            # exists, because it is its coming that is waited for.
            if (yield desk.client.exists_async(f"{path}/{READY}", watch=bell.ring)) is None:
                if len(names) >= count:
                    yield from _say_ready(desk, path, sorted(names)[:count])
                    continue
                yield bell
            elif (yield from _admitted(desk, path, mine, names)):
                return
            yield from desk.until_connected()

    yield from patient(desk, path, attempt)


def _say_ready(desk: Desk, path: str, names: list[str]) -> Script[None]:
    try:
        yield desk.client.create_async(f"{path}/{READY}", json.dumps(names).encode())
    except NodeExistsError:
        return  # Another one has seen it, too.


def _admitted(desk: Desk, path: str, mine: Kept, present: list[str]) -> Script[bool]:
    """Whether the round that has begun is ours; else waits for a sign of its end.

    It is ours if it lists our node. One that was made again after a lost session has another name
    and waits for the next round: the others have seen us die. Once we are in it is not made again,
    or it would count for the next round, too.
    """
    bell = Bell()
    try:
        data, stat = yield desk.client.get_async(f"{path}/{READY}", watch=bell.ring)
    except NoNodeError:
        return False
    listed = json.loads(data)
    if mine.name in listed:
        mine.settle()
        return True
    left = sorted(set(listed) & set(present))
    if not left:
        # All of that round have gone without tidying up.
        yield from _tidy(desk, path, stat.version)
        return False
    try:
        # The last of them takes the ready node away, or dies: either is told.
        yield desk.client.get_async(f"{path}/{MEMBERS}/{left[-1]}", watch=bell.ring)
    except NoNodeError:
        return False
    yield bell
    return False


def _tidy(desk: Desk, path: str, version: int) -> Script[None]:
    try:
        yield desk.client.delete_async(f"{path}/{READY}", version=version)
    except (NoNodeError, BadVersionError):
        return  # Another one has.


def left(desk: Desk, path: str, mine: Kept) -> Script[None]:
    """Waits until all of the round have left; takes our own node away when its turn comes.

    Each watches one node: all that of the lowest name, whose owner watches the highest.
    """

    def attempt() -> Script[None]:
        while True:
            try:
                data, stat = yield desk.client.get_async(f"{path}/{READY}")
            except NoNodeError:
                return  # The last has left, and tidied up.
            round_ = json.loads(data)
            if mine.name not in round_:
                return
            names = yield desk.client.get_children_async(f"{path}/{MEMBERS}")
            here = sorted(set(round_) & set(names))
            if not here or here == [mine.name]:
                yield from _gone(mine)
                yield from _tidy(desk, path, stat.version)
                return
            lowest = here[0] == mine.name
            if not lowest:
                yield from _gone(mine)
            awaited = here[-1] if lowest else here[0]
            bell = Bell()
            try:
                yield desk.client.get_async(f"{path}/{MEMBERS}/{awaited}", watch=bell.ring)
            except NoNodeError:
                continue
            yield bell
            yield from desk.until_connected()

    yield from patient(desk, path, attempt)


def _gone(mine: Kept) -> Script[None]:
    bell = Bell()
    mine.leave().add_done_callback(bell.ring)
    yield bell


class DoubleBarrier:
    """Nobody begins before ``count`` are there, and nobody goes before all are done.

        with shoal.DoubleBarrier(directory, "epoch-7", count=4):
            compute()

    A participant that dies before all are there does not count, from when its session has ended,
    and one more is awaited. One that dies afterwards, or whose session is lost, counts as done.
    Whoever comes while a round is under way waits for the next.

    Args:
        directory: Whose session and chroot.
        name: Of the barrier; its nodes are below ``/barriers/NAME``.
        count: How many take part.
        timeout: Of both ends of the ``with`` statement, seconds; None: for as long as it takes.
    """

    def __init__(
        self, directory: Directory, name: str, count: int, *, timeout: float | None = None
    ) -> None:
        if count < 1:
            raise ValueError(f"at least one takes part in a barrier, not {count!r}")
        self._path = barrier_path(name)
        self.name = name
        self.count = count
        self._directory = directory
        self._timeout = timeout
        self._kept: Kept | None = None

    def __enter__(self) -> Self:
        self.enter(self._timeout)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave(self._timeout)

    def enter(self, timeout: float | None = None) -> None:
        """Waits until all are there.

        Raises:
            CoordinationTimeoutError: they were not within ``timeout`` seconds; we are not there
                any more either.
            CoordinationError: this object has entered already.
        """
        if self._kept is not None:
            raise CoordinationError(f"barrier {self.name!r} was entered through this object")
        desk = self._directory.desk()
        path = f"{desk.chroot}{self._path}"
        kept = self._kept = seat(desk, path)
        try:
            wait(
                self._directory,
                f"the wait for {self.count} at barrier {self.name!r}",
                lambda desk: entered(desk, path, kept, self.count),
                timeout,
            )
        except BaseException:
            self._kept = None
            give_up(self._directory, kept)
            raise

    def leave(self, timeout: float | None = None) -> None:
        """Waits until all are done. Without effect where it was not entered.

        Raises:
            CoordinationTimeoutError: they were not within ``timeout`` seconds; we count as done.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            return
        try:
            wait(
                self._directory,
                f"the wait for all to leave barrier {self.name!r}",
                lambda desk: left(desk, f"{desk.chroot}{self._path}", kept),
                timeout,
            )
        finally:
            give_up(self._directory, kept)
