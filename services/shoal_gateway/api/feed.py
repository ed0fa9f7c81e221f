"""The history, read once for all who watch.

One coroutine of the process asks the registry what is new and keeps the last few thousand events.
Watchers are cursors on that ring: they cost no thread, no queue and no call, and a slow one holds
up nobody. One that fell behind the ring reads what it missed from the registry, and comes back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from shoal_gateway.errors import UnavailableError
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

logger = logging.getLogger(__name__)

# Events kept; a page of those that are not.
KEPT = 10_000
PAGE = 1000
# Seconds that the registry may hold a question for news; the api's attempts there take longer.
WAIT = 2.0
# Seconds between questions while there is news all the time, so that each brings many events.
PACE = 0.02
# Seconds between attempts while the registry can't be reached: doubling, with jitter.
BACKOFF = (0.1, 2.0)
# Seconds that a watcher waits for the first answer after a start.
PATIENCE = 5.0

# Asks for events: (after, how many, how long to wait).
Ask = Callable[[int, int, float], Awaitable[registry_pb2.ChangesResponse]]


class Feed:
    """Events as they come, for any number of watchers.

    Args:
        ask: Calls the registry's Changes.
        kept: Events that are remembered.
        rng: For the jitter of retries.
    """

    def __init__(self, ask: Ask, *, kept: int = KEPT, rng: random.Random | None = None) -> None:
        self._ask = ask
        self._kept = kept
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, hides nothing
        self._events: list[job_pb2.Event] = []
        # The cursor before the first event that is kept, and behind the last; None before the
        # registry's first answer.
        self._floor = 0
        self._last: int | None = None
        self._advanced = asyncio.Event()
        self._leaving = False

    async def run(self) -> None:
        """Keeps the feed up to date, until cancelled."""
        backoff, down = BACKOFF[0], False
        while True:
            try:
                await self._advance()
            except (grpc.RpcError, UnavailableError) as error:
                if not down:
                    logger.warning("the registry's history can't be read, watchers wait: %s", error)
                    down = True
                await asyncio.sleep(backoff * self._rng.uniform(0.5, 1.0))
                backoff = min(2.0 * backoff, BACKOFF[1])
                continue
            if down:
                logger.info("the registry's history is read again")
            backoff, down = BACKOFF[0], False

    async def position(self) -> int:
        """The cursor behind the last event that is known here.

        Raises:
            UnavailableError: the registry has not answered since this process started.
        """
        if self._last is None:
            try:
                async with asyncio.timeout(PATIENCE):
                    while self._last is None:
                        await self._advanced.wait()
            except TimeoutError:
                raise UnavailableError(
                    "the registry has not answered since this api replica started; try again"
                ) from None
        return self._last

    async def follow(self, after: int) -> AsyncIterator[job_pb2.Event]:
        """Every event after a cursor, without end.

        Raises:
            UnavailableError: this replica is leaving, and what it knew was told.
        """
        await self.position()
        cursor = after
        while True:
            if cursor < self._floor:
                missed = await self._ask(cursor, PAGE, 0.0)
                for event in missed.events:
                    yield event
                cursor = missed.last
                if not missed.events:
                    # The numbers up to the floor were taken and not used.
                    cursor = max(cursor, self._floor)
                continue
            advanced = self._advanced
            found = self._events[bisect_right(self._events, cursor, key=_seq) :]
            for event in found:
                cursor = event.seq
                yield event
            if not found:
                if self._leaving:
                    raise UnavailableError(
                        "this api replica is leaving; follow again, from where you are"
                    )
                await advanced.wait()

    def leave(self) -> None:
        """Sends away those who wait for more."""
        self._leaving = True
        self._wake()

    async def _advance(self) -> None:
        if self._last is None:
            answer = await self._ask(-1, PAGE, 0.0)
            self._floor = answer.last
        else:
            answer = await self._ask(self._last, PAGE, WAIT)
        self._last = answer.last
        if answer.events:
            # A new list: those who iterate over the old one are not disturbed.
            events = [*self._events, *answer.events]
            dropped = events[: -self._kept]
            if dropped:
                self._floor = dropped[-1].seq
            self._events = events[-self._kept :]
        self._wake()
        if answer.events and len(answer.events) < PAGE:
            await asyncio.sleep(PACE)

    def _wake(self) -> None:
        # Wakes all who wait on the old event; the next wait is on a new one.
        self._advanced, advanced = asyncio.Event(), self._advanced
        advanced.set()


def _seq(event: job_pb2.Event) -> int:
    return event.seq
