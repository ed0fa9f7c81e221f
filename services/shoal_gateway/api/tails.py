"""Logs as they grow, read once for all who follow them.

A job's manager uploads output in segments, each named by the offset of its first byte. One `Tail`
per job, attempt and stream looks for new segments while anybody follows, and keeps the contents
that its followers are reading, so a hundred of them cost one listing and one read.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from shoal_gateway.errors import UnavailableError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds between listings while somebody follows.
INTERVAL = 0.3
# Bytes in one message, and bytes of segments kept by one tail.
PIECE = 64 * 1024
KEPT = 8 * 1024 * 1024


class Segments(Protocol):
    """What a tail needs of the object store; its calls block.

    Both raise UnavailableError for what may work in a moment.
    """

    def keys(self, prefix: str) -> Iterable[str]:
        """Keys that begin with a prefix."""

    def content(self, key: str) -> bytes:
        """A whole object."""


class Tail:
    """One stream of one attempt.

    Args:
        segments: Where they are.
        prefix: What their keys begin with; the rest is the offset.
        executor: Runs the blocking calls.
        interval: Seconds between listings.
    """

    def __init__(
        self, segments: Segments, prefix: str, executor: Executor, *, interval: float = INTERVAL
    ) -> None:
        self._segments = segments
        self._prefix = prefix
        self._executor = executor
        self._interval = interval
        self._offsets: list[int] = []
        self._contents: OrderedDict[int, asyncio.Task[bytes]] = OrderedDict()
        self._grown = asyncio.Event()
        self._ended = asyncio.Event()
        self._failure: BaseException | None = None
        # All that there will ever be has been listed.
        self.complete = False

    def end(self) -> None:
        """The attempt has ended and has uploaded all: one more listing, and it is complete."""
        self._ended.set()

    async def refresh(self) -> bool:
        """Looks for new segments once; whether all that there will ever be is listed."""
        ended = self._ended.is_set()
        keys = await self._blocking(lambda: list(self._segments.keys(self._prefix)))
        offsets = sorted(int(key.removeprefix(self._prefix)) for key in keys)
        if offsets != self._offsets or ended:
            self._offsets = offsets
            # Only a listing that began after the end proves that nothing more will come.
            self.complete = ended
            self._wake()
        return self.complete

    async def keep_fresh(self) -> None:
        """Looks again and again until all is there; cancelled when nobody follows."""
        try:
            while not await self._refreshed():
                try:
                    async with asyncio.timeout(self._interval):
                        await self._ended.wait()
                except TimeoutError:
                    continue
        except BaseException as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Nobody looks any more: those who wait must not wait for ever."""
        self._failure = error
        self._wake()

    async def read(self, offset: int) -> tuple[int, bytes]:
        """A piece from ``offset`` on, and the offset where it really begins.

        It begins later only if the log is complete and what lies before was lost. Nothing there
        yet: no bytes.
        """
        while True:
            at = bisect_right(self._offsets, offset) - 1
            if at >= 0:
                begin = self._offsets[at]
                content = await self._content(begin)
                if offset < begin + len(content):
                    return offset, content[offset - begin : offset - begin + PIECE]
            following = self._offsets[at + 1] if at + 1 < len(self._offsets) else None
            if following is None or not self.complete:
                return offset, b""
            offset = following

    async def follow(self, offset: int) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces as they come, until the log is complete."""
        while True:
            # Taken before reading, so that growth in between is not missed.
            complete, grown = self.complete, self._grown
            begin, data = await self.read(offset)
            if data:
                offset = begin + len(data)
                yield begin, data
            elif complete:
                return
            elif self._failure is not None:
                raise UnavailableError(
                    f"logs below {self._prefix} can't be followed: {self._failure}; try again from"
                    f" offset {offset}"
                ) from self._failure
            else:
                await grown.wait()

    async def present(self, offset: int) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces that are there now."""
        await self.refresh()
        while True:
            begin, data = await self.read(offset)
            if not data:
                return
            offset = begin + len(data)
            yield begin, data

    async def _content(self, begin: int) -> bytes:
        task = self._contents.get(begin)
        if task is None:
            key = f"{self._prefix}{begin:020d}"
            task = asyncio.create_task(self._blocking(lambda: self._segments.content(key)))
            self._contents[begin] = task
        self._contents.move_to_end(begin)
        try:
            # One follower that goes away must not cancel what others wait for.
            content = await asyncio.shield(task)
        finally:
            if task.done() and (task.cancelled() or task.exception() is not None):
                # What could not be read now may be read by the next who asks.
                self._contents.pop(begin, None)
        self._forget_old()
        return content

    async def _refreshed(self) -> bool:
        try:
            return await self.refresh()
        except UnavailableError as error:
            logger.warning("logs below %s can't be listed, trying again: %s", self._prefix, error)
            await asyncio.sleep(self._interval)
            return False

    def _wake(self) -> None:
        self._grown, grown = asyncio.Event(), self._grown
        grown.set()

    def _forget_old(self) -> None:
        kept = 0
        for begin, task in reversed(list(self._contents.items())):
            if not task.done() or task.cancelled() or task.exception() is not None:
                continue
            kept += len(task.result())
            if kept > KEPT and begin != next(reversed(self._contents)):
                del self._contents[begin]

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


class Tails:
    """The tails that are followed right now.

    Args:
        segments: Where the logs are.
        executor: Runs the blocking calls.
    """

    def __init__(
        self, segments: Segments, executor: Executor, *, interval: float = INTERVAL
    ) -> None:
        self._segments = segments
        self._executor = executor
        self._interval = interval
        self._open: dict[str, tuple[Tail, asyncio.Task[None]]] = {}
        self._followers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def leave(self) -> None:
        """Sends away those who wait for more."""
        for tail, _ in self._open.values():
            tail.fail(UnavailableError("this api replica is leaving"))

    def once(self, prefix: str) -> Tail:
        """A tail for one reader that does not follow."""
        return Tail(self._segments, prefix, self._executor)

    @asynccontextmanager
    async def follow(self, prefix: str) -> AsyncIterator[Tail]:
        """The shared tail of a stream, kept fresh within the block."""
        found = self._open.get(prefix)
        if found is None:
            tail = Tail(self._segments, prefix, self._executor, interval=self._interval)
            task = asyncio.create_task(tail.keep_fresh(), name=f"tail {prefix}")
            found = self._open[prefix] = (tail, task)
        tail, task = found
        self._followers[prefix] = self._followers.get(prefix, 0) + 1
        try:
            yield tail
        finally:
            self._followers[prefix] -= 1
            if not self._followers[prefix]:
                del self._followers[prefix], self._open[prefix]
                task.cancel()
