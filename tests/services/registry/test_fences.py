"""What a leader writes, and what a deposed one doesn't."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from shoal_gateway.registry import fences, servicer
from shoal_gateway.registry.fences import StaleFenceError
from shoal_gateway.registry.servicer import RegistryServicer
from shoal_protos.gateway.model.v1 import job_pb2


def seen(hands):
    with hands.store.read() as connection:
        return connection.execute(fences.fences.select()).all()


def test_fences_grow_and_an_older_one_is_refused(hands):
    for fence in (5, 5, 9):
        with hands.store.write() as connection:
            fences.enforce(connection, "reaper", fence)
    with (
        pytest.raises(StaleFenceError, match="fence 8 is stale, 9 was seen"),
        hands.store.write() as connection,
    ):
        fences.enforce(connection, "reaper", 8)
    assert seen(hands) == [("reaper", 9)]


def test_of_two_writers_at_once_the_older_waits_for_the_newer_and_is_refused(hands):
    inside, leave = threading.Event(), threading.Event()
    order = []

    def newer():
        with hands.store.write() as connection:
            fences.enforce(connection, "reaper", 9)
            inside.set()
            assert leave.wait(30)
            order.append("newer ends")

    def older():
        with hands.store.write() as connection:
            entered.set()
            fences.enforce(connection, "reaper", 8)

    entered = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(newer)
        assert inside.wait(30)
        second = pool.submit(older)
        second.add_done_callback(lambda _: order.append("older ends"))
        # SQLite lets nobody in meanwhile; PostgreSQL does, and the row stays locked.
        entered.wait(0.2)
        leave.set()
        first.result(30)
        with pytest.raises(StaleFenceError, match="fence 8 is stale, 9 was seen"):
            second.result(30)
    assert order == ["newer ends", "older ends"]
    assert seen(hands) == [("reaper", 9)]


def test_a_resource_that_nobody_has_made_is_a_mistake(hands):
    with pytest.raises(KeyError, match="dinner"), hands.store.write() as connection:
        fences.enforce(connection, "dinner", 1)


def test_a_deposed_reaper_changes_nothing(hands):
    holding = hands.running()
    assert hands.registry.sweep(7) == 0
    hands.expire(holding.job_id)
    assert hands.registry.sweep(9) == 1
    holding = hands.again(holding.job_id)
    hands.expire(holding.job_id)
    with pytest.raises(StaleFenceError):
        hands.registry.sweep(8)
    assert hands.job(holding.job_id).state == job_pb2.STATE_RUNNING
    # Who leads nothing does it by compare-and-set alone.
    assert hands.registry.sweep() == 1


async def test_a_follower_looks_too_after_a_while(hands, monkeypatch):
    monkeypatch.setattr(servicer, "BACKSTOP", 0.05)
    holding = hands.running()
    hands.expire(holding.job_id)
    serving = RegistryServicer(hands.registry)
    serving.sweep_every = 0.01
    sweeping = asyncio.create_task(serving.keep_swept(lambda: False))
    try:
        async with asyncio.timeout(60):
            while hands.job(holding.job_id).state != job_pb2.STATE_QUEUED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the store tells nobody
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await serving.close()


class Turns:
    """A term that lasts for so many looks."""

    def __init__(self, fence, looks):
        self.fence = fence
        self.looks = looks

    async def wait(self, seconds):
        self.looks -= 1
        return self.looks < 0


async def test_a_leader_whose_fence_stays_stale_works_without_one(hands, monkeypatch, caplog):
    monkeypatch.setattr(servicer, "STALE", 3)
    holding = hands.running()
    hands.expire(holding.job_id)
    with hands.store.write() as connection:
        fences.enforce(connection, "reaper", 100)
    serving = RegistryServicer(hands.registry)
    try:
        # As long as a successor may be there it leaves the lease alone.
        await serving.reap(Turns(1, 3))
        assert hands.job(holding.job_id).state == job_pb2.STATE_RUNNING
        assert "has ZooKeeper lost its data?" in caplog.text
        await serving.reap(Turns(1, 4))
        assert hands.job(holding.job_id).state == job_pb2.STATE_QUEUED
        assert seen(hands) == [("reaper", 100)]
    finally:
        await serving.close()
