"""One reader of the history for any number of watchers."""

from __future__ import annotations

import asyncio
import random

import pytest

from shoal_gateway.api.feed import Feed
from shoal_gateway.errors import UnavailableError
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

DEADLINE = 30.0


class FakeHistory:
    """A registry's Changes, with a count of how often it is asked for what."""

    def __init__(self):
        self.events = []
        self.questions = []
        self.fail = 0
        self._grown = asyncio.Event()

    def write(self, count=1):
        for _ in range(count):
            seq = len(self.events) + 1
            event = job_pb2.Event(seq=seq, job_id=f"job-{seq % 3}", state=job_pb2.STATE_QUEUED)
            self.events.append(event)
        self._grown.set()

    async def ask(self, after, limit, wait):
        self.questions.append((after, wait))
        if self.fail:
            self.fail -= 1
            raise UnavailableError("the registry is away")
        if after < 0:
            return registry_pb2.ChangesResponse(last=len(self.events))
        if len(self.events) <= after and wait:
            self._grown.clear()
            await self._grown.wait()
        found = self.events[after : after + limit]
        return registry_pb2.ChangesResponse(events=found, last=found[-1].seq if found else after)


async def first(feed, after, count):
    seen = []
    async with asyncio.timeout(DEADLINE):
        async for event in feed.follow(after):
            seen.append(event.seq)
            if len(seen) == count:
                break
    return seen


@pytest.fixture
async def history():
    return FakeHistory()


@pytest.fixture
async def feed(history):
    made = Feed(history.ask, kept=10, rng=random.Random(1))
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_hundred_watchers_cost_one_reader(history, feed):
    await feed.position()
    watchers = [asyncio.create_task(first(feed, 0, 5)) for _ in range(100)]
    await asyncio.sleep(0)
    history.write(5)
    assert await asyncio.gather(*watchers) == [[1, 2, 3, 4, 5]] * 100
    assert len(history.questions) <= 5


async def test_who_comes_late_or_falls_behind_misses_nothing(history, feed):
    history.write(3)
    await feed.position()
    history.write(40)
    # The ring holds ten; what is before them is asked for.
    assert await first(feed, 0, 43) == list(range(1, 44))
    assert await first(feed, 38, 5) == [39, 40, 41, 42, 43]


async def test_an_outage_loses_nothing(history, feed, caplog):
    position = await feed.position()
    history.fail = 2
    watcher = asyncio.create_task(first(feed, position, 2))
    await asyncio.sleep(0)
    history.write(1)
    history.write(1)
    assert await watcher == [1, 2]


async def test_before_the_first_answer_watchers_are_told_to_come_back(history, monkeypatch):
    monkeypatch.setattr("shoal_gateway.api.feed.PATIENCE", 0.05)
    feed = Feed(history.ask)
    with pytest.raises(UnavailableError, match="has not answered"):
        await feed.position()
