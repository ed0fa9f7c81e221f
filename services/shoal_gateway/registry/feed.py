"""Waiting for events without a thread per waiter.

Followers of the history ask "what comes after 17?" and wait. Another registry process may write
what they wait for, and a database does not call back, so one poller looks at the last number while
anybody waits, however many they are. What this process writes wakes them at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shoal_gateway.errors import UnavailableError

# Seconds between looks at the store while somebody waits: soon after something was written, and
# when for long nothing was. Three idle replicas that looked 20 times a second, each for ever, took
# an eighth of a core.
INTERVAL = 0.05
LONGEST = 0.25
_SLOWER = 1.25


class Feed:
    """Lets coroutines wait until the history has grown beyond a number.

    Args:
        latest: Reads the last event's number from the store.
        interval: Seconds between reads, soon after something was written.
        longest: Seconds between reads, when for long nothing was.
    """

    def __init__(
        self,
        latest: Callable[[], Awaitable[int]],
        *,
        interval: float = INTERVAL,
        longest: float = LONGEST,
    ) -> None:
        self._read = latest
        self._interval = self.pause = interval
        self._longest = longest
        self._seen = 0
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._nudge = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._leaving = False

    async def beyond(self, seq: int, seconds: float) -> None:
        """Returns when an event after ``seq`` can be read, or after ``seconds``.

        Raises:
            UnavailableError: the store can't be read.
        """
        if self._leaving:
            return
        arrived = asyncio.get_running_loop().create_future()
        self._waiters[arrived] = seq
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="registry feed")
        try:
            async with asyncio.timeout(seconds):
                await arrived
        except TimeoutError:
            return
        finally:
            self._waiters.pop(arrived, None)

    def nudge(self) -> None:
        """Something was written in this process: looks now."""
        self._nudge.set()

    def leave(self) -> None:
        """Nobody waits here any more: all are answered now, with what there is."""
        self._leaving = True
        for arrived in list(self._waiters):
            if not arrived.done():
                arrived.set_result(None)

    async def close(self) -> None:
        """Ends the poller; those who still wait are left to their timeouts."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    async def _poll(self) -> None:
        while self._waiters:
            self._nudge.clear()
            try:
                latest = await self._read()
            except UnavailableError as error:
                for arrived in list(self._waiters):
                    if not arrived.done():
                        arrived.set_exception(error)
                return
            self.pause = self._next_pause(latest)
            for arrived, seq in list(self._waiters.items()):
                if latest > seq and not arrived.done():
                    arrived.set_result(None)
            try:
                async with asyncio.timeout(self.pause):
                    await self._nudge.wait()
            except TimeoutError:
                continue

    def _next_pause(self, latest: int) -> float:
        if latest == self._seen:
            return min(self.pause * _SLOWER, self._longest)
        self._seen = latest
        return self._interval
