"""Waiting for the history to grow."""

import asyncio

from shoal_gateway.registry.feed import Feed

WAIT = 30.0


async def test_looks_become_rarer_while_nothing_comes_and_frequent_with_what_does():
    latest, pauses, quiet = 5, [], asyncio.Event()

    async def read():
        pauses.append(feed.pause)
        if pauses[-1] == 0.004:
            quiet.set()
        return latest

    feed = Feed(read, interval=0.001, longest=0.004)
    waiting = asyncio.create_task(feed.beyond(5, WAIT))
    await asyncio.wait_for(quiet.wait(), WAIT)
    assert pauses == sorted(pauses)
    assert not waiting.done()

    latest = 6  # by another replica, whose writes nobody tells of
    await asyncio.wait_for(waiting, WAIT)
    assert feed.pause == 0.001
    await feed.close()


async def test_what_this_process_writes_is_looked_for_at_once():
    latest, looked = 5, asyncio.Event()

    async def read():
        looked.set()
        return latest

    feed = Feed(read, interval=10 * WAIT, longest=10 * WAIT)
    waiting = asyncio.create_task(feed.beyond(5, 5 * WAIT))
    await asyncio.wait_for(looked.wait(), WAIT)
    latest = 6
    feed.nudge()
    await asyncio.wait_for(waiting, WAIT)
    await feed.close()
