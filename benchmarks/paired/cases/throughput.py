"""As many calls as it goes: 8 threads, and 64 asyncio tasks, over three servers.

Servers and callers share the cores, so that half of what is measured are the servers; both kinds
that grpc has are tried, for they take crowding differently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from benchmarks.paired.bench import Bench, turned
from benchmarks.paired.callers import (
    CORE,
    DIRECT,
    OURS,
    REQUEST,
    TIMEOUT,
    aio_channel,
    calls_of,
    servers,
)
from benchmarks.paired.load import tasked, threaded
from benchmarks.paired.rows import Row, Target, at_least, ratios
from shoal_protos.testing.v1 import echo_pb2_grpc

THREADS = 8
TASKS = 64
KINDS = {"with threads": True, "on asyncio": False}
# Blocks of a round, in each of which everyone has a turn.
BLOCKS = 4


def blocking(bench: Bench) -> list[Row]:
    """Threads."""
    return [row for kind in KINDS for row in _blocking(bench, kind)]


def _blocking(bench: Bench, kind: str) -> list[Row]:
    case = f"throughput, {THREADS} threads, servers {kind}"
    with servers(0.0, 0.0, 0.0, threads=KINDS[kind]) as started:
        targets = [server.target for server in started]
        with calls_of(dict.fromkeys((OURS, CORE, DIRECT), targets)) as calls:
            for call in calls.values():
                threaded(call, THREADS, 200)
            rates: dict[str, list[float]] = {name: [] for name in calls}
            amount = bench.amount(1200, 80)
            for number in bench.each(case):
                spent = dict.fromkeys(calls, 0.0)
                for block in range(BLOCKS):
                    for name in turned(list(calls), number + block):
                        spent[name] += 1.0 / threaded(calls[name], THREADS, amount)
                for name, total in spent.items():
                    rates[name].append(BLOCKS / total)
    return _rows(case, rates, at_least(1.05))


def asynchronous(bench: Bench) -> list[Row]:
    """Tasks."""
    rows = []
    for kind, threads in KINDS.items():
        case = f"throughput, {TASKS} asyncio tasks, servers {kind}"
        with servers(0.0, 0.0, 0.0, threads=threads) as started:
            targets = [server.target for server in started]
            rows += asyncio.run(_asynchronous(bench, case, targets))
    return rows


async def _asynchronous(bench: Bench, case: str, targets: Sequence[str]) -> list[Row]:
    async with AsyncExitStack() as stack:
        calls = {}
        for name in (OURS, CORE, DIRECT):
            channel = await stack.enter_async_context(aio_channel(name, targets))
            echo = echo_pb2_grpc.EchoStub(channel).Echo
            calls[name] = partial(echo, REQUEST, timeout=TIMEOUT)
        for call in calls.values():
            await tasked(call, TASKS, 4 * TASKS)
        rates: dict[str, list[float]] = {name: [] for name in calls}
        amount = bench.amount(30 * TASKS, 2 * TASKS)
        for number in bench.each(case):
            spent = dict.fromkeys(calls, 0.0)
            for block in range(BLOCKS):
                for name in turned(list(calls), number + block):
                    spent[name] += 1.0 / await tasked(calls[name], TASKS, amount)
            for name, total in spent.items():
                rates[name].append(BLOCKS / total)
    return _rows(case, rates, at_least(1.1))


def _rows(case: str, rates: dict[str, list[float]], target: Target) -> list[Row]:
    ours = rates[OURS]
    rows = [
        Row(
            case,
            peer,
            "throughput ÷ peer's",
            ratios(ours, theirs),
            target if peer == CORE else None,
        )
        for peer, theirs in rates.items()
        if peer != OURS
    ]
    return rows + [Row(case, name, "calls a second", tuple(rate)) for name, rate in rates.items()]
