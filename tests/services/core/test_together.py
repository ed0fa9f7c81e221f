"""Calls that come at the same time become one."""

import asyncio

import pytest

from shoal_gateway.together import Together


class Door:
    """Takes batches; holds them until it is opened."""

    def __init__(self):
        self.batches = []
        self.open = asyncio.Event()
        self.entered = asyncio.Event()

    async def __call__(self, items):
        self.batches.append(list(items))
        self.entered.set()
        await self.open.wait()
        return [ValueError(item) if item < 0 else item * 10 for item in items]


async def begun(door, ask, *items):
    """Asks for the first, and for the others while that is under way."""
    tasks = [asyncio.create_task(ask(items[0]))]
    await door.entered.wait()
    tasks += [asyncio.create_task(ask(item)) for item in items[1:]]
    await asyncio.sleep(0)
    return tasks


async def test_the_first_waits_for_nobody_and_the_rest_go_together():
    door = Door()
    tasks = await begun(door, Together(door, most=100), 1, 2, 3, 4)
    door.open.set()
    assert await asyncio.gather(*tasks) == [10, 20, 30, 40]
    assert door.batches == [[1], [2, 3, 4]]


async def test_a_batch_is_bounded_by_number_and_by_weight():
    door = Door()
    tasks = await begun(
        door, Together(door, most=2, size=lambda item: item, limit=10), 1, 2, 3, 4, 9, 20, 1
    )
    door.open.set()
    await asyncio.gather(*tasks)
    assert door.batches == [[1], [2, 3], [4], [9], [20], [1]]


async def test_an_error_of_one_is_that_ones_and_an_error_of_the_call_is_everybodys():
    door = Door()
    door.open.set()
    ask = Together(door, most=10)
    found = await asyncio.gather(ask(1), ask(-2), ask(3), return_exceptions=True)
    assert (found[0], found[2]) == (10, 30)
    assert isinstance(found[1], ValueError)

    async def broken(_):
        raise ConnectionError("away")

    ask = Together(broken, most=10)
    for error in await asyncio.gather(ask(1), ask(2), return_exceptions=True):
        assert isinstance(error, ConnectionError)
    # It is fit for the next.
    with pytest.raises(ConnectionError):
        await ask(3)


async def test_who_does_not_wait_any_more_is_not_asked_for():
    door = Door()
    tasks = await begun(door, Together(door, most=10), 1, 2, 3)
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    door.open.set()
    assert await asyncio.gather(tasks[0], tasks[2]) == [10, 30]
    assert door.batches == [[1], [3]]
