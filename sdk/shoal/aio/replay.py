"""A stream of requests that can be sent again, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from shoal.replay import LIMIT

END = object()


class Feed:
    """Requests that the caller writes one by one; a write waits until the one before was taken."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)

    async def write(self, request: Any) -> None:
        """Hands a request over."""
        await self._queue.put(request)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """The requests, until `END` is written."""
        while (request := await self._queue.get()) is not END:
            yield request


class AioReplayedRequests:
    """Serialized requests of one call, kept for another attempt up to 256 KiB.

    Each attempt reads through an iterator of its own. The source is read by one task at a time,
    which outlives the attempt that wanted it: an attempt that failed while it waited loses nothing.

    Args:
        source: The caller's requests.
        serialize: Turns one into bytes; None when they are bytes already.
    """

    def __init__(
        self,
        source: AsyncIterable[Any] | Iterable[Any],
        serialize: Callable[[Any], bytes] | None,
    ) -> None:
        self._source = _iterated(source)
        self._serialize = serialize
        self._kept: list[bytes] = []
        self._dropped = 0
        self._size = 0
        self._ended = False
        self._error: Exception | None = None
        self._fetch: asyncio.Task[None] | None = None

    @property
    def replayable(self) -> bool:
        """Whether everything that was read is still here."""
        return self._dropped == 0

    async def reader(self) -> AsyncIterator[bytes]:
        """All requests from the first on."""
        position = 0
        while True:
            index = position - self._dropped
            if index < len(self._kept):
                yield self._kept[index]
                position += 1
            elif self._error is not None:
                # The caller's iterator failed: no attempt may look as if it had been sent whole.
                raise self._error
            elif self._ended:
                return
            else:
                if self._fetch is None:
                    self._fetch = asyncio.create_task(self._read(position))
                await asyncio.shield(self._fetch)

    def close(self) -> None:
        """Stops reading the source."""
        if self._fetch is not None:
            self._fetch.cancel()

    async def _read(self, position: int) -> None:
        try:
            message = await anext(self._source)
            request = self._serialize(message) if self._serialize is not None else message
        except StopAsyncIteration:
            self._ended = True
        except asyncio.CancelledError:
            self._ended = True
            raise
        except Exception as error:  # noqa: BLE001 - raised in every reader, this one's too
            self._error = error
        else:
            if self._size + len(request) > LIMIT:
                # The one reader there is stands at this position; what lies before it is not
                # needed by anyone but a second attempt, which there won't be.
                self._dropped = position
                self._kept.clear()
            self._kept.append(request)
            self._size += len(request)
        finally:
            self._fetch = None


async def _iterated(source: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    if isinstance(source, AsyncIterable):
        async for request in source:
            yield request
    else:
        for request in source:
            yield request
