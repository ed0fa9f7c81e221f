"""What metrics and traces cost: the same callers and servers, observed and not.

The channels are of one process and call the same servers; everyone has a turn in every block of a
round. "Sampled out" has a tracer that records nothing, as most calls have where one in a hundred is
sampled; "traced" records every span and hands it to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider, sampling

import shoal
import shoal.aio
import shoal.otel
from benchmarks.paired.bench import Bench, turned
from benchmarks.paired.callers import REQUEST, SERVICE, TIMEOUT, servers
from benchmarks.paired.load import serial, serial_aio, threaded
from benchmarks.paired.rows import Row, at_most, ratios
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2_grpc

OFF = "Shoal, not observed"
METRICS = "metrics"
SAMPLED_OUT = "metrics and traces, sampled out"
TRACED = "metrics and traces"
CALLERS = (OFF, METRICS, SAMPLED_OUT, TRACED)

BLOCK = 50
THREADS = 8


@contextmanager
def _observing(name: str) -> Iterator[None]:
    """While channels are made that are observed so."""
    if name == OFF:
        yield
        return
    tracers = None
    if name == SAMPLED_OUT:
        tracers = TracerProvider(sampler=sampling.ALWAYS_OFF)
    elif name == TRACED:
        tracers = TracerProvider(sampler=sampling.ALWAYS_ON)
    with shoal.otel.instrument(MeterProvider([InMemoryMetricReader()]), tracers):
        yield


def blocking(bench: Bench) -> list[Row]:
    """Blocking calls, of one thread and of several."""
    case, many = "metrics on, serial, blocking", f"metrics on, {THREADS} threads"
    with servers(0.0, 0.0, 0.0) as started, ExitStack() as stack:
        directory = FixedDirectory({SERVICE: [server.target for server in started]})
        calls = {}
        for name in CALLERS:
            with _observing(name):
                channel = stack.enter_context(shoal.Channel(directory, SERVICE))
                stub = echo_pb2_grpc.EchoStub(channel)
            calls[name] = partial(stub.Echo, REQUEST, timeout=TIMEOUT)
        for call in calls.values():
            serial(call, 2 * BLOCK)
        spent: dict[str, list[float]] = {name: [] for name in calls}
        blocks = bench.amount(40, 2)
        for number in bench.each(case):
            total = dict.fromkeys(calls, 0.0)
            for block in range(blocks):
                for name in turned(list(calls), number + block):
                    total[name] += serial(calls[name], BLOCK)
            _note(spent, total, blocks * BLOCK)
        rates: dict[str, list[float]] = {name: [] for name in calls}
        amount = bench.amount(800, 80)
        for number in bench.each(many):
            total = dict.fromkeys(calls, 0.0)
            for block in range(4):
                for name in turned(list(calls), number + block):
                    total[name] += 1.0 / threaded(calls[name], THREADS, amount)
            for name, inverse in total.items():
                rates[name].append(4 / inverse)
    return [
        *_rows(case, spent),
        *(
            Row(many, OFF, f"throughput with {name} ÷ peer's", ratios(rates[name], rates[OFF]))
            for name in CALLERS[1:]
        ),
    ]


def asynchronous(bench: Bench) -> list[Row]:
    """The same for asyncio, one call after the other."""
    with servers(0.0, 0.0, 0.0) as started:
        return asyncio.run(_asynchronous(bench, [server.target for server in started]))


async def _asynchronous(bench: Bench, targets: list[str]) -> list[Row]:
    case = "metrics on, serial, asyncio"
    async with AsyncExitStack() as stack:
        directory = FixedDirectory({SERVICE: targets})
        calls = {}
        for name in CALLERS:
            with _observing(name):
                channel = shoal.aio.Channel(directory, SERVICE)
                stub = echo_pb2_grpc.EchoStub(await stack.enter_async_context(channel))
            calls[name] = partial(stub.Echo, REQUEST, timeout=TIMEOUT)
        for call in calls.values():
            await serial_aio(call, 2 * BLOCK)
        spent: dict[str, list[float]] = {name: [] for name in calls}
        blocks = bench.amount(40, 2)
        for number in bench.each(case):
            total = dict.fromkeys(calls, 0.0)
            for block in range(blocks):
                for name in turned(list(calls), number + block):
                    total[name] += await serial_aio(calls[name], BLOCK)
            _note(spent, total, blocks * BLOCK)
    return _rows(case, spent)


def _note(spent: dict[str, list[float]], total: dict[str, float], calls: int) -> None:
    for name, seconds in total.items():
        spent[name].append(seconds / calls)


def _rows(case: str, spent: dict[str, list[float]]) -> list[Row]:
    target = {METRICS: at_most(1.05)}
    return [
        *(
            Row(
                case,
                OFF,
                f"latency with {name} ÷ peer's",
                ratios(spent[name], spent[OFF]),
                target.get(name),
            )
            for name in CALLERS[1:]
        ),
        *(
            Row(case, name, "mean latency, µs", tuple(1e6 * each for each in values))
            for name, values in spent.items()
        ),
    ]
