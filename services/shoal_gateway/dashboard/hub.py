"""Tells many pages what is new, as server-sent events. A slow page gets the whole again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

# Events that a page may be behind; one that falls further behind begins anew.
BEHIND = 64
# Seconds between signs of life on a quiet stream: proxies and browsers drop silent ones.
QUIET = 15.0


def event(name: str, document: Any, cursor: str | None = None) -> bytes:
    """One server-sent event."""
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    marked = f"id: {cursor}\n" if cursor is not None else ""
    return f"{marked}event: {name}\ndata: {data}\n\n".encode()


class Hub:
    """Everybody who watches. On one event loop.

    Args:
        whole: Makes the events that a page begins with.
    """

    def __init__(self, whole: Callable[[], list[bytes]]) -> None:
        self._whole = whole
        self._queues: set[asyncio.Queue[bytes | None]] = set()
        self._closed = False

    def publish(self, name: str, document: Any) -> None:
        """Sends an event to all."""
        if not self._queues:
            return
        data = event(name, document)
        for queue in self._queues:
            if queue.full():
                # What it has missed is in the whole.
                while not queue.empty():
                    queue.get_nowait()
                for part in self._whole():
                    queue.put_nowait(part)
            else:
                queue.put_nowait(data)

    async def stream(self) -> AsyncIterator[bytes]:
        """The events for one page, until it goes or the hub closes."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(BEHIND)
        for part in self._whole():
            queue.put_nowait(part)
        if self._closed:
            return
        self._queues.add(queue)
        try:
            while True:
                try:
                    async with asyncio.timeout(QUIET):
                        data = await queue.get()
                except TimeoutError:
                    data = b": quiet\n\n"
                if data is None:
                    return
                yield data
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        for queue in self._queues:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
