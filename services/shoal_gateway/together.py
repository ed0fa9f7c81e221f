"""Group commit for coroutines: what is asked while a call is under way goes out in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Makes one call of those that come at the same time.

    Nobody waits for company: an item that comes while nothing is under way is sent at once, by
    itself. What comes meanwhile goes out when the answer is there.

    Args:
        call: Takes items, and gives an answer for each in their order; an exception as an answer is
            raised where its item came from, and one that is raised, everywhere.
        most: Items in one call.
        size: An item's weight.
        limit: Weight of one call; a heavier item goes alone.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        most: int,
        size: Callable[[T], int] = lambda _: 0,
        limit: int = 1,
    ) -> None:
        self._call = call
        self._most = most
        self._size = size
        self._limit = limit
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """An item's answer."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="calls together")
        return await answer

    async def _run(self) -> None:
        try:
            while batch := self._next():
                await self._send(batch)
        finally:
            self._task = None

    def _next(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        weight = 0
        while self._waiting and len(batch) < self._most:
            item, answer = self._waiting[0]
            # Who does not wait any more is not asked for.
            if not answer.done():
                weight += self._size(item)
                if batch and weight > self._limit:
                    break
                batch.append((item, answer))
            self._waiting.popleft()
        return batch

    async def _send(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            found: Sequence[R | Exception] = await self._call([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - raised where the items came from
            found = [error] * len(batch)
        for (_, answer), result in zip(batch, found, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
