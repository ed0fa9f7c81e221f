"""What needs no servers at the other end, or hardly any: the pick, and the memory of a list."""

from __future__ import annotations

import json
from contextlib import ExitStack

from benchmarks.paired.bench import Bench, turned
from benchmarks.paired.callers import CORE, OURS, SERVICE, nowhere
from benchmarks.paired.load import clock
from benchmarks.paired.processes import EchoProcess, Program
from benchmarks.paired.rows import Row, at_most, ratios
from shoal.channel import Channel
from shoal.pool import Pool
from shoal.testing import FixedDirectory
from shoal_balancer import Outcome

SIZES = (3, 100, 10_000)
USED = 20


def pick(bench: Bench) -> list[Row]:
    """The pick from lists of three sizes, with the book-keeping around it and without."""
    case = "pick alone"
    picks: dict[int, list[float]] = {size: [] for size in SIZES}
    whole: dict[int, list[float]] = {size: [] for size in SIZES}
    count = bench.amount(50_000, 500)
    with ExitStack() as stack:
        pools = {}
        for size in SIZES:
            targets = [nowhere(number) for number in range(size)]
            directory = stack.enter_context(FixedDirectory({SERVICE: targets}))
            pools[size] = stack.enter_context(Channel(directory, SERVICE)).pool
            _experienced(pools[size])
        for number in bench.each(case):
            for size in turned(SIZES, number):
                picks[size].append(1e6 * _picks(pools[size], count))
                whole[size].append(1e6 * _bookkeeping(pools[size], count))
    large = SIZES[-1]
    return [
        *(
            Row(case, f"{size} replicas", "pick, µs", tuple(picks[size]), at_most(3.0))
            for size in SIZES
        ),
        Row(
            case,
            f"{SIZES[0]} replicas",
            f"pick from {large} ÷ peer's",
            ratios(picks[large], picks[SIZES[0]]),
        ),
        *(
            Row(case, f"{size} replicas", "pick, begin and end, µs", tuple(whole[size]))
            for size in SIZES
        ),
    ]


def memory(bench: Bench) -> list[Row]:
    """What a list of 1000 replicas costs, in a process of its own for each figure."""
    listed = bench.amount(1000, 50)
    case = f"a list of {listed} replicas"
    found: dict[str, list[dict[str, float]]] = {OURS: [], CORE: []}
    with EchoProcess(addresses=listed) as server:
        target = server.wait().target
        for number in bench.each(case):
            for name in turned((OURS, CORE), number):
                with Program(
                    "benchmarks.paired.memory", name, target, str(listed), str(USED)
                ) as program:
                    found[name].append(json.loads(program.line()))
    return [
        Row(
            case,
            name,
            metric,
            tuple(each[key] for each in found[name]),
            at_most(20.0) if name == OURS else None,
        )
        for key, metric in (
            ("listed", "memory of the list, MB"),
            ("used", f"the same after {USED} calls, MB"),
        )
        for name in (OURS, CORE)
    ]


def _experienced(pool: Pool) -> None:
    """Every replica has been called, as after some time of use."""
    now = pool.clock()
    for number, node in enumerate(pool.balancer.snapshot.ready):
        node.begin()
        node.end(0.001 + 1e-6 * number, Outcome.OK, now)


def _picks(pool: Pool, count: int) -> float:
    """Seconds of one pick."""
    choose, now = pool.pick, pool.clock()
    began = clock()
    for _ in range(count):
        choose(now)
    return (clock() - began) / count


def _bookkeeping(pool: Pool, count: int) -> float:
    """Seconds of all that a call does beside calling, clocks included."""
    choose, time, done = pool.pick, pool.clock, Outcome.OK
    began = clock()
    for _ in range(count):
        sent = time()
        node = choose(sent)
        if node is None:
            raise RuntimeError("there is a replica, and none was picked")
        node.begin()
        now = time()
        node.end(0.001 + (now - sent), done, now)
    return (clock() - began) / count
