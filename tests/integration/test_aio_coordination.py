"""shoal.aio.Lock and shoal.aio.Leadership over a real ZooKeeper."""

from __future__ import annotations

import asyncio

import pytest

import shoal
import shoal.aio

WAIT = 60.0


async def soon(done, what="it"):
    async with asyncio.timeout(WAIT):
        while not done():  # noqa: ASYNC110 - another process is what changes
            await asyncio.sleep(0.01)
    assert done(), what


def nodes(operator, chroot, kind="locks"):
    path = f"/{chroot.partition('/')[2]}/{kind}/x"
    return operator.get_children(path) if operator.exists(path) else []


@pytest.fixture
async def two(chroot, tmp_path):
    made = [shoal.aio.Directory(chroot, cache_dir=tmp_path) for _ in range(2)]
    yield made
    for each in made:
        await each.aclose()


async def test_a_lock_is_held_by_one_and_blocking_locks_wait_for_it(two, directories):
    first, second = (shoal.aio.Lock(each, "x", who=str(each)) for each in two)
    async with first:
        assert first.held
        first.check()
        with pytest.raises(shoal.LockTakenError):
            await second.acquire(wait=False)
        with pytest.raises(shoal.LockTimeoutError, match="1 stood ahead"):
            await second.acquire(0.2)
        with pytest.raises(shoal.LockError, match="already"):
            await first.acquire()
        waiting = asyncio.create_task(asyncio.to_thread(shoal.Lock(directories(), "x").acquire))
        fence = first.fence
    assert await waiting > fence
    assert not first.held
    assert not await first.release()


async def test_a_cancelled_wait_leaves_no_node_behind(two, operator, chroot):
    first, second = (shoal.aio.Lock(each, "x") for each in two)
    async with first:
        for _ in range(20):
            waiting = asyncio.create_task(second.acquire())
            # At any moment of it: before its node is made, while it is, and after.
            await asyncio.sleep(0.001)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await soon(lambda: len(nodes(operator, chroot)) == 1)
    async with second:
        assert second.held
    await soon(lambda: nodes(operator, chroot) == [])


async def test_a_holder_that_is_cancelled_releases(two, operator, chroot):
    begun = asyncio.Event()

    async def hold():
        async with shoal.aio.Lock(two[0], "x"):
            begun.set()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await begun.wait()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    await soon(lambda: nodes(operator, chroot) == [])


async def test_a_lost_session_is_told_in_the_loop(two, zookeeper):
    reasons = []
    lock = shoal.aio.Lock(two[0], "x", on_lost=reasons.append)
    fence = await lock.acquire()
    thief = two[0].sync.desk().client.client_id
    await asyncio.to_thread(zookeeper.expire_session, thief)
    await asyncio.wait_for(lock.lost.wait(), WAIT)
    assert reasons == ["its ZooKeeper session has ended"]
    with pytest.raises(shoal.LockLostError, match="session has ended"):
        lock.check()
    assert not await lock.release()
    assert await lock.acquire(WAIT) > fence
    assert not lock.lost.is_set()
    await lock.release()


async def test_leadership_moves_on_and_its_coroutine_is_told(two, zookeeper, operator, chroot):
    terms, ends = [], []

    async def lead(term):
        terms.append(term)
        assert await term.wait(WAIT)
        ends.append(term)

    first, second = (shoal.aio.Leadership(each, "x", lead) for each in two)
    async with first:
        await soon(lambda: first.leads)
        async with second:
            await soon(lambda: len(nodes(operator, chroot, "leaders")) == 2)
            assert not second.leads
            thief = two[0].sync.desk().client.client_id
            await asyncio.to_thread(zookeeper.expire_session, thief)
            await soon(lambda: len(ends) == 1 and second.leads)
            with pytest.raises(shoal.LockLostError):
                terms[0].check()
            assert terms[1].fence > terms[0].fence
        await soon(lambda: first.leads and len(terms) == 3)
    assert len(ends) == 3
    await soon(lambda: nodes(operator, chroot, "leaders") == [])
    with pytest.raises(shoal.CoordinationError, match="started already"):
        first.start()


async def test_a_coroutine_that_fails_stands_again_and_one_that_hangs_is_cancelled(two, caplog):
    terms = []

    async def lead(term):
        terms.append(term)
        if len(terms) == 1:
            raise ZeroDivisionError
        await asyncio.Event().wait()

    leadership = shoal.aio.Leadership(two[0], "x", lead)
    leadership.start()
    await soon(lambda: len(terms) == 2)
    assert "ZeroDivisionError" in caplog.text
    assert not await leadership.close(timeout=0.1)
    assert not leadership.leads
