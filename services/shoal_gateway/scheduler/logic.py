"""Leasing and offering, as a loop for each flavor. No gRPC here.

A job leaves the queue only as a lease of a few seconds, and an offer starts nothing by itself: the
manager that takes it begins it at the registry. So a scheduler that dies, hangs or is cut off
loses nothing, and an offer that was made twice is begun once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shoal_gateway.scheduler.pace import BREATH, MAX_BATCH, MIN_BACKOFF, Pace
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

logger = logging.getLogger(__name__)

Offer = registry_pb2.Offer
_Verdict = appmanager_pb2.StartResponse

# Times that what one manager had no room for is offered to others before it is given back.
ROUNDS = 3
# Seconds to wait after the registry could not be asked.
AWAY = 1.0


class QueueAwayError(Exception):
    """The registry could not be asked; what was held stays held until its lease ends."""


class NobodyTookError(Exception):
    """No manager answered for a chunk of offers: all full, none there, or too late.

    Args:
        said: Why.
        full: Whether every manager said that it has no room, before it looked at the offers.
    """

    def __init__(self, said: str, *, full: bool = False) -> None:
        super().__init__(said)
        self.full = full


class Queue(Protocol):
    """The registry, as a scheduler needs it."""

    async def lease(self, flavor: str, limit: int) -> Sequence[Offer]:
        """Takes jobs of a flavor.

        Raises:
            QueueAwayError: it could not be asked.
        """

    async def release(self, offers: Sequence[Offer], reason: str, *, keep_place: bool) -> None:
        """Gives jobs back, to wait where they did or behind all that wait.

        Raises:
            QueueAwayError: it could not be asked.
        """


class Managers(Protocol):
    """The app managers, as a scheduler needs them."""

    def flavors(self) -> Mapping[str, int]:
        """Flavors that somebody serves, and how many replicas do."""

    async def start(
        self, flavor: str, offers: Sequence[Offer]
    ) -> Sequence[appmanager_pb2.StartResponse.Item]:
        """Offers jobs to one manager of a flavor; its verdicts.

        Raises:
            NobodyTookError: no manager gave verdicts.
        """


@dataclass(slots=True)
class Tally:
    """What was done since the start."""

    leased: int = 0
    started: int = 0
    released: int = 0
    taken: int = 0
    on_offer: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a chunk of offers."""

    started: int
    taken: int
    # To be offered elsewhere.
    left: tuple[Offer, ...]
    reason: str
    # Of those left, what somebody could not run, or what nobody answered for: they may be to blame.
    suspect: frozenset[str] = frozenset()


def settled(offers: Sequence[Offer], items: Sequence[appmanager_pb2.StartResponse.Item]) -> Settled:
    """Reads a manager's verdicts; an offer without a known verdict counts as not taken."""
    verdicts = {item.job_id: item for item in items}
    started = taken = 0
    left, reasons, suspect = [], [], set()
    for offer in offers:
        item = verdicts.get(offer.job_id)
        if item is not None and item.verdict == _Verdict.VERDICT_STARTED:
            started += 1
        elif item is not None and item.verdict == _Verdict.VERDICT_TAKEN:
            taken += 1
        else:
            left.append(offer)
            if item is None or item.verdict != _Verdict.VERDICT_FULL:
                suspect.add(offer.job_id)
            if item is not None and item.verdict == _Verdict.VERDICT_UNABLE:
                reasons.append(item.reason or "its host is not able to run it")
    reason = reasons[0] if reasons else "no slot is free"
    return Settled(started, taken, tuple(left), reason, frozenset(suspect))


def chunks(offers: Sequence[Offer], managers: int) -> list[Sequence[Offer]]:
    """Spreads offers over as many calls as there are managers, evenly."""
    count = max(1, min(len(offers), managers))
    return [offers[index::count] for index in range(count)]


class Dispatcher:
    """Takes jobs from the queue and finds managers for them, until it is stopped.

    Args:
        queue: Where jobs wait.
        managers: Who runs them.
        poll: Seconds between looks at an empty queue.
        rng: For jitter.

    Attributes:
        poll: The same; may be changed while it works.
        max_batch: Jobs leased at once, at most; likewise.
    """

    def __init__(
        self, queue: Queue, managers: Managers, *, poll: float, rng: random.Random
    ) -> None:
        self.tally = Tally()
        self._queue = queue
        self._managers = managers
        self.poll = poll
        self.max_batch = MAX_BATCH
        self._rng = rng
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._flavors: set[str] = set()

    def wake(self) -> None:
        """There may be something to do."""
        self._wake, wake = asyncio.Event(), self._wake
        wake.set()

    def stop(self) -> None:
        """Takes nothing more; `run` returns when what is held is started or given back."""
        self._stopping.set()
        self.wake()

    async def run(self) -> None:
        """Works until stopped."""
        async with asyncio.TaskGroup() as group:
            while not self._stopping.is_set():
                for flavor in sorted(set(self._managers.flavors()) - self._flavors):
                    self._flavors.add(flavor)
                    logger.info("flavor %s is served; taking its jobs", flavor)
                    group.create_task(self._serve(flavor), name=f"flavor {flavor}")
                await self._pause(self.poll)

    async def _serve(self, flavor: str) -> None:
        pace = Pace()
        loop = asyncio.get_running_loop()
        breathe = 0.0
        while not self._stopping.is_set():
            replicas = self._managers.flavors().get(flavor, 0)
            if not replicas:
                # Nobody serves it now: its jobs are better off in the queue than on offer here.
                await self._pause(self.poll)
                continue
            wait = breathe - loop.time()
            if wait > 0.0:
                await self._sleep(wait, self._stopping)
                continue
            wake = self._wake
            try:
                batch = min(pace.batch, self.max_batch)
                offers = await self._queue.lease(flavor, batch)
            except QueueAwayError as error:
                logger.warning("no jobs could be leased, trying again: %s", error)
                await self._pause(AWAY)
                continue
            if not offers:
                await self._pause(self.poll, wake)
                continue
            breathe = loop.time() + BREATH if len(offers) < batch else 0.0
            self.tally.leased += len(offers)
            left = await self._place(flavor, offers, replicas)
            pace = pace.after(len(offers) - left, left, self.max_batch)
            if pace.backoff:
                await self._back_off(pace.backoff)

    async def _place(self, flavor: str, offers: Sequence[Offer], replicas: int) -> int:
        """Finds managers for offers and gives back what found none; how many those are."""
        self.tally.on_offer += len(offers)
        left, reason = tuple(offers), "its scheduler stops"
        suspect: set[str] = set()
        try:
            for _ in range(ROUNDS):
                if not left or self._stopping.is_set():
                    break
                results = await asyncio.gather(
                    *(self._offer(flavor, chunk) for chunk in chunks(left, replicas))
                )
                left = tuple(offer for result in results for offer in result.left)
                suspect.update(*(result.suspect for result in results))
                reason = next((result.reason for result in results if result.left), reason)
                if not any(result.started for result in results):
                    # Asking the same managers again at once would find them as they are.
                    break
        finally:
            self.tally.on_offer -= len(offers)
        for group, keep_place in (
            ([offer for offer in left if offer.job_id not in suspect], True),
            ([offer for offer in left if offer.job_id in suspect], False),
        ):
            if group:
                await self._give_back(flavor, group, reason, keep_place=keep_place)
        return len(left)

    async def _offer(self, flavor: str, offers: Sequence[Offer]) -> Settled:
        try:
            result = settled(offers, await self._managers.start(flavor, offers))
        except NobodyTookError as error:
            suspect = frozenset() if error.full else frozenset(each.job_id for each in offers)
            return Settled(0, 0, tuple(offers), str(error), suspect)
        self.tally.started += result.started
        self.tally.taken += result.taken
        return result

    async def _give_back(
        self, flavor: str, offers: Sequence[Offer], reason: str, *, keep_place: bool
    ) -> None:
        try:
            await self._queue.release(offers, reason, keep_place=keep_place)
        except QueueAwayError as error:
            logger.warning(
                "%d jobs of flavor %s could not be given back and wait for their leases' end: %s",
                len(offers),
                flavor,
                error,
            )
        else:
            self.tally.released += len(offers)

    async def _back_off(self, seconds: float) -> None:
        # The first part is not cut short: hints come with every submit, and a full fleet that
        # is offered each of them anew does nothing else.
        await self._sleep(MIN_BACKOFF, self._stopping)
        await self._pause(seconds)

    async def _pause(self, seconds: float, wake: asyncio.Event | None = None) -> None:
        """Waits for a hint, at most about ``seconds``; jitter keeps schedulers out of step."""
        await self._sleep(seconds * self._rng.uniform(0.5, 1.0), wake or self._wake)

    @staticmethod
    async def _sleep(seconds: float, until: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(seconds):
                await until.wait()
        except TimeoutError:
            return
