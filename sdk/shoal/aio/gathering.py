"""Meeting points, barriers and groups for asyncio code: the same conversations, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import shoal.directory
from shoal.aio.directory import Directory
from shoal.aio.lock import tell
from shoal.directory import check_name
from shoal.errors import CoordinationError, CoordinationTimeoutError
from shoal.recipes.barrier import barrier_path, closed, entered, left, opened, passed, seat
from shoal.recipes.group import NOTHING, GroupWatch, Members, group_path, of_flavor
from shoal.recipes.kept import Kept
from shoal.recipes.meeting import GOODBYE, heard, meeting_path
from shoal.recipes.waits import wait_aio


class Keeping:
    """What is kept until `leave` or the end of the ``async with`` block."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave()

    async def leave(
        self,
        timeout: float = GOODBYE,  # noqa: ASYNC109 - as the blocking one's
    ) -> bool:
        """Takes it away; whether it was gone within ``timeout`` seconds. Idempotent."""
        gone = asyncio.wrap_future(self._kept.leave())
        done, _ = await asyncio.wait([gone], timeout=timeout)
        return bool(done)


class MeetingPoint:
    """As `shoal.MeetingPoint`, awaited.

    Args:
        directory: Whose session and chroot.
        name: Of the place.
    """

    def __init__(self, directory: Directory, name: str) -> None:
        self._path = meeting_path(name)
        self.name = name
        self._directory = directory.sync

    async def post(
        self,
        facts: Mapping[str, Any],
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking one's
    ) -> Keeping:
        """Says something; see `shoal.MeetingPoint.post`."""
        return await _keep(self._directory, self._path, facts, timeout)

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking one's
    ) -> dict[str, Any]:
        """What was said there, as soon as somebody has.

        Raises:
            CoordinationTimeoutError: nobody had within ``timeout`` seconds.
        """
        return await wait_aio(
            self._directory,
            f"the wait at meeting point {self.name!r}",
            lambda desk: heard(desk, f"{desk.chroot}{self._path}"),
            timeout,
        )


class Barrier:
    """As `shoal.Barrier`, awaited.

    Args:
        directory: Whose session and chroot.
        name: Of the barrier.
    """

    def __init__(self, directory: Directory, name: str) -> None:
        self._path = barrier_path(name)
        self.name = name
        self._directory = directory.sync

    async def close(
        self,
        timeout: float = 10.0,  # noqa: ASYNC109 - as the blocking one's
    ) -> bool:
        """Whoever waits from now on does not pass; whether it was open."""
        return await wait_aio(
            self._directory,
            f"the closing of barrier {self.name!r}",
            lambda desk: closed(desk, f"{desk.chroot}{self._path}"),
            timeout,
        )

    async def open(
        self,
        timeout: float = 10.0,  # noqa: ASYNC109 - as the blocking one's
    ) -> bool:
        """All who wait pass; whether it was closed."""
        return await wait_aio(
            self._directory,
            f"the opening of barrier {self.name!r}",
            lambda desk: opened(desk, f"{desk.chroot}{self._path}"),
            timeout,
        )

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking one's
    ) -> None:
        """Waits until it is open."""
        await wait_aio(
            self._directory,
            f"the wait at barrier {self.name!r}",
            lambda desk: passed(desk, f"{desk.chroot}{self._path}"),
            timeout,
        )


class DoubleBarrier:
    """As `shoal.DoubleBarrier`, awaited; a task that is cancelled at it does not count any more.

    Args:
        directory: Whose session and chroot.
        name: Of the barrier.
        count: How many take part.
        timeout: Of both ends of the ``async with`` statement, seconds.
    """

    def __init__(
        self, directory: Directory, name: str, count: int, *, timeout: float | None = None
    ) -> None:
        if count < 1:
            raise ValueError(f"at least one takes part in a barrier, not {count!r}")
        self._path = barrier_path(name)
        self.name = name
        self.count = count
        self._directory = directory.sync
        self._timeout = timeout
        self._kept: Kept | None = None

    async def __aenter__(self) -> Self:
        await self.enter(self._timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave(self._timeout)

    async def enter(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking one's
    ) -> None:
        """Waits until all are there; see `shoal.DoubleBarrier.enter`."""
        if self._kept is not None:
            raise CoordinationError(f"barrier {self.name!r} was entered through this object")
        desk = self._directory.desk()
        path = f"{desk.chroot}{self._path}"
        kept = self._kept = seat(desk, path)
        try:
            await wait_aio(
                self._directory,
                f"the wait for {self.count} at barrier {self.name!r}",
                lambda desk: entered(desk, path, kept, self.count),
                timeout,
            )
        except BaseException:
            self._kept = None
            await _give_up(self._directory, kept)
            raise

    async def leave(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking one's
    ) -> None:
        """Waits until all are done; see `shoal.DoubleBarrier.leave`."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        try:
            await wait_aio(
                self._directory,
                f"the wait for all to leave barrier {self.name!r}",
                lambda desk: left(desk, f"{desk.chroot}{self._path}", kept),
                timeout,
            )
        finally:
            await _give_up(self._directory, kept)


class Group:
    """As `shoal.Group`, awaited.

    Args:
        directory: Whose session and chroot.
        name: Of the group.
    """

    def __init__(self, directory: Directory, name: str) -> None:
        self._path = group_path(name)
        self.name = name
        self._directory = directory.sync
        self._watch: GroupWatch | None = None

    async def join(
        self,
        id: str,  # noqa: A002 - as a replica has it
        *,
        flavor: str = "",
        facts: Mapping[str, Any] = NOTHING,
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking one's
    ) -> Keeping:
        """Is a member from now on; see `shoal.Group.join`."""
        check_name(id)
        said = {"flavor": flavor, "facts": dict(facts)}
        return await _keep(self._directory, f"{self._path}/{id}", said, timeout)

    def members(self, flavor: str | None = None) -> Members:
        """The last set that is known, sorted by id; empty before the first answer."""
        return of_flavor(self.watch().members, flavor)

    def subscribe(self, listener: Callable[[Members], object]) -> Callable[[], None]:
        """Calls ``listener`` in the running loop with every new whole set."""
        loop = asyncio.get_running_loop()
        return self.watch().subscribe(lambda members: tell(loop, lambda: listener(members)))

    async def wait(
        self,
        count: int,
        *,
        flavor: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking one's
    ) -> Members:
        """Waits until at least ``count`` are there, and returns them.

        Raises:
            CoordinationTimeoutError: there were fewer within ``timeout`` seconds.
        """
        enough = asyncio.Event()

        def look(members: Members) -> None:
            if len(of_flavor(members, flavor)) >= count:
                enough.set()

        end = self.subscribe(look)
        try:
            async with asyncio.timeout(timeout):
                await enough.wait()
        except TimeoutError as error:
            raise CoordinationTimeoutError(
                f"group {self.name!r} had {len(self.members(flavor))} members and not {count} after"
                f" {timeout or 0.0:g} s; ZooKeeper is {self._directory.describe()}"
            ) from error
        finally:
            end()
        return self.members(flavor)

    def close(self) -> None:
        """Follows the group no longer, until it is asked again; see `shoal.Group.close`."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def watch(self) -> GroupWatch:
        """What follows the group; made at the first use."""
        if self._watch is None:
            desk = self._directory.desk()
            self._watch = GroupWatch(desk, f"{desk.chroot}{self._path}")
        return self._watch


async def _keep(
    directory: shoal.directory.Directory,
    path: str,
    facts: Mapping[str, Any],
    timeout: float | None,  # noqa: ASYNC109 - as `wait_aio` has it
) -> Keeping:
    desk = directory.desk()
    kept = Kept(desk, f"{desk.chroot}{path}", facts)
    try:
        await _there(directory, kept, timeout)
    except BaseException:
        await _give_up(directory, kept)
        raise
    return Keeping(kept)


async def _give_up(directory: shoal.directory.Directory, kept: Kept) -> None:
    """As `shoal.recipes.meeting.give_up`; who is cancelled once more does not wait for it."""
    # Begun before anything is awaited.
    gone = asyncio.wrap_future(kept.leave())
    await asyncio.wait([gone], timeout=GOODBYE if directory.connected else 0.0)


async def _there(
    directory: shoal.directory.Directory,
    kept: Kept,
    timeout: float | None,  # noqa: ASYNC109 - as `wait_aio` has it
) -> None:
    try:
        async with asyncio.timeout(timeout):
            await asyncio.shield(asyncio.wrap_future(kept.there))
    except TimeoutError as error:
        raise CoordinationTimeoutError(
            f"{kept.path} was not there after {timeout or 0.0:g} s; ZooKeeper is "
            f"{directory.describe()}"
        ) from error
