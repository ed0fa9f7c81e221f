"""One caller, one call after the other: against the core's round robin and two gateways.

All callers use the same three servers. A round is many short blocks, in which everyone has a turn:
what else the machine does meanwhile hits all alike.
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
from benchmarks.paired.gateways import HAPROXY, NGINX, gateways
from benchmarks.paired.load import serial, serial_aio
from benchmarks.paired.rows import Row, Target, at_most, ratios
from shoal_protos.testing.v1 import echo_pb2_grpc

BLOCK = 50
TARGETS: dict[str, Target] = {CORE: at_most(1.0), HAPROXY: at_most(0.85), NGINX: at_most(0.8)}


def blocking(bench: Bench) -> list[Row]:
    """Blocking calls."""
    case = "serial latency, blocking"
    with servers(0.0, 0.0, 0.0) as started:
        targets = [server.target for server in started]
        with gateways(bench, targets) as fronts, calls_of(_peers(targets, fronts)) as calls:
            for call in calls.values():
                serial(call, 2 * BLOCK)
            seconds: dict[str, list[float]] = {name: [] for name in calls}
            for number in bench.each(case):
                spent = dict.fromkeys(calls, 0.0)
                for block in range(bench.amount(40, 2)):
                    for name in turned(list(calls), number + block):
                        spent[name] += serial(calls[name], BLOCK)
                _note(seconds, spent, bench.amount(40, 2))
    return _rows(case, seconds)


def asynchronous(bench: Bench) -> list[Row]:
    """Calls of one asyncio task, against ``grpc.aio``."""
    with servers(0.0, 0.0, 0.0) as started:
        targets = [server.target for server in started]
        with gateways(bench, targets) as fronts:
            return asyncio.run(_asynchronous(bench, _peers(targets, fronts)))


async def _asynchronous(bench: Bench, peers: dict[str, Sequence[str]]) -> list[Row]:
    case = "serial latency, asyncio"
    async with AsyncExitStack() as stack:
        calls = {}
        for name, targets in peers.items():
            channel = await stack.enter_async_context(aio_channel(name, targets))
            echo = echo_pb2_grpc.EchoStub(channel).Echo
            calls[name] = partial(echo, REQUEST, timeout=TIMEOUT)
        for call in calls.values():
            await serial_aio(call, 2 * BLOCK)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for number in bench.each(case):
            spent = dict.fromkeys(calls, 0.0)
            for block in range(bench.amount(40, 2)):
                for name in turned(list(calls), number + block):
                    spent[name] += await serial_aio(calls[name], BLOCK)
            _note(seconds, spent, bench.amount(40, 2))
    return _rows(case, seconds)


def _peers(targets: Sequence[str], fronts: dict[str, str]) -> dict[str, Sequence[str]]:
    return {
        OURS: targets,
        CORE: targets,
        DIRECT: targets,
        **{name: [target] for name, target in fronts.items()},
    }


def _note(seconds: dict[str, list[float]], spent: dict[str, float], blocks: int) -> None:
    for name, total in spent.items():
        seconds[name].append(total / (blocks * BLOCK))


def _rows(case: str, seconds: dict[str, list[float]]) -> list[Row]:
    ours = seconds[OURS]
    rows = [
        Row(case, peer, "latency ÷ peer's", ratios(ours, theirs), TARGETS.get(peer))
        for peer, theirs in seconds.items()
        if peer != OURS
    ]
    return rows + [
        Row(case, name, "mean latency, µs", tuple(1e6 * each for each in spent))
        for name, spent in seconds.items()
    ]
