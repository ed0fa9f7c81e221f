"""What TLS costs: the same callers and servers, at a port with certificates and at one without.

Both sides show a certificate (EC P-256, TLS 1.3). Each server process has both ports, so that
nothing but the wire differs; everyone has a turn in every block of a round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import shoal
import shoal.aio
from benchmarks.paired.bench import Bench, turned
from benchmarks.paired.callers import REQUEST, SERVICE, TIMEOUT
from benchmarks.paired.load import serial, serial_aio, tasked, threaded
from benchmarks.paired.processes import EchoProcess
from benchmarks.paired.rows import Row, ratios
from shoal.authority import Authority
from shoal.identity import PeerIdentity
from shoal.testing import FixedDirectory
from shoal_balancer import Replica
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc

WITH, WITHOUT = "Shoal with TLS", "Shoal in plain text"
LARGE = echo_pb2.EchoRequest(payload=b"x" * 65536)
PAYLOADS = {"100 bytes": REQUEST, "64 KiB": LARGE}

THREADS, TASKS = 8, 64
BLOCK = 50
SERVERS = 3


@contextmanager
def _parties(*, threads: bool) -> Iterator[tuple[FixedDirectory, dict[str, shoal.Tls | None]]]:
    """Servers with two ports each, and what each caller calls with."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory(prefix="shoal-bench-")))
        authority = Authority.create(place)
        server = authority.issue(PeerIdentity(SERVICE))
        caller = shoal.Tls.of(authority.issue(PeerIdentity("bench")))
        started = [
            stack.enter_context(EchoProcess(threads=threads, tls=server)) for _ in range(SERVERS)
        ]
        replicas = []
        for number, each in enumerate(started):
            each.wait()
            ports = [int(target.rpartition(":")[2]) for target in (each.target, each.secure)]
            replicas.append(Replica(f"echo-{number}", "127.0.0.1", ports[0], ssl_port=ports[1]))
        directory = stack.enter_context(FixedDirectory({SERVICE: replicas}))
        yield directory, {WITH: caller, WITHOUT: None}


def blocking(bench: Bench) -> list[Row]:
    """Blocking calls, of one thread and of several, and the first call of a channel."""
    rows: list[Row] = []
    with _parties(threads=True) as (directory, callers), ExitStack() as stack:
        stubs = {
            name: echo_pb2_grpc.EchoStub(
                stack.enter_context(shoal.Channel(directory, SERVICE, tls=tls))
            )
            for name, tls in callers.items()
        }
        for size, request in PAYLOADS.items():
            calls = {
                name: partial(stub.Echo, request, timeout=TIMEOUT) for name, stub in stubs.items()
            }
            for call in calls.values():
                threaded(call, THREADS, 2 * BLOCK)
            case = f"TLS, serial, blocking, {size}"
            spent: dict[str, list[float]] = {name: [] for name in calls}
            blocks = bench.amount(20, 2)
            for number in bench.each(case):
                total = dict.fromkeys(calls, 0.0)
                for block in range(blocks):
                    for name in turned(list(calls), number + block):
                        total[name] += serial(calls[name], BLOCK)
                _note(spent, total, blocks * BLOCK)
            rows += _latencies(case, spent)
            case = f"TLS, {THREADS} threads, {size}"
            rates: dict[str, list[float]] = {name: [] for name in calls}
            amount = bench.amount(800, 80)
            for number in bench.each(case):
                total = dict.fromkeys(calls, 0.0)
                for block in range(4):
                    for name in turned(list(calls), number + block):
                        total[name] += 1.0 / threaded(calls[name], THREADS, amount)
                _note_rates(rates, total, 4)
            rows += _rates(case, rates)
        rows += _first_calls(bench, directory, callers)
    return rows


def _first_calls(
    bench: Bench, directory: FixedDirectory, callers: dict[str, shoal.Tls | None]
) -> list[Row]:
    case = "TLS, the first call of a channel"
    spent: dict[str, list[float]] = {name: [] for name in callers}
    count = bench.amount(20, 2)
    for number in bench.each(case):
        total = dict.fromkeys(callers, 0.0)
        for block in range(count):
            for name in turned(list(callers), number + block):
                with shoal.Channel(directory, SERVICE, tls=callers[name]) as channel:
                    stub = echo_pb2_grpc.EchoStub(channel)
                    total[name] += serial(partial(stub.Echo, REQUEST, timeout=TIMEOUT), 1)
        _note(spent, total, count)
    return _latencies(case, spent)


def asynchronous(bench: Bench) -> list[Row]:
    """The same for asyncio, on both ends."""
    with _parties(threads=False) as (directory, callers):
        return asyncio.run(_asynchronous(bench, directory, callers))


async def _asynchronous(
    bench: Bench, directory: FixedDirectory, callers: dict[str, shoal.Tls | None]
) -> list[Row]:
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        stubs: dict[str, Any] = {}
        for name, tls in callers.items():
            channel = shoal.aio.Channel(directory, SERVICE, tls=tls)
            stubs[name] = echo_pb2_grpc.EchoStub(await stack.enter_async_context(channel))
        for size, request in PAYLOADS.items():
            calls = {
                name: partial(stub.Echo, request, timeout=TIMEOUT) for name, stub in stubs.items()
            }
            for call in calls.values():
                await tasked(call, TASKS, 2 * TASKS)
            case = f"TLS, serial, asyncio, {size}"
            spent: dict[str, list[float]] = {name: [] for name in calls}
            blocks = bench.amount(20, 2)
            for number in bench.each(case):
                total = dict.fromkeys(calls, 0.0)
                for block in range(blocks):
                    for name in turned(list(calls), number + block):
                        total[name] += await serial_aio(calls[name], BLOCK)
                _note(spent, total, blocks * BLOCK)
            rows += _latencies(case, spent)
            case = f"TLS, {TASKS} asyncio tasks, {size}"
            rates: dict[str, list[float]] = {name: [] for name in calls}
            amount = bench.amount(12 * TASKS, 2 * TASKS)
            for number in bench.each(case):
                total = dict.fromkeys(calls, 0.0)
                for block in range(4):
                    for name in turned(list(calls), number + block):
                        total[name] += 1.0 / await tasked(calls[name], TASKS, amount)
                _note_rates(rates, total, 4)
            rows += _rates(case, rates)
    return rows


def _note(spent: dict[str, list[float]], total: dict[str, float], calls: int) -> None:
    for name, seconds in total.items():
        spent[name].append(seconds / calls)


def _note_rates(rates: dict[str, list[float]], total: dict[str, float], blocks: int) -> None:
    for name, inverse in total.items():
        rates[name].append(blocks / inverse)


def _latencies(case: str, spent: dict[str, list[float]]) -> list[Row]:
    return [
        Row(case, WITHOUT, "latency ÷ peer's", ratios(spent[WITH], spent[WITHOUT])),
        *(
            Row(case, name, "mean latency, µs", tuple(1e6 * each for each in values))
            for name, values in spent.items()
        ),
    ]


def _rates(case: str, rates: dict[str, list[float]]) -> list[Row]:
    return [
        Row(case, WITHOUT, "throughput ÷ peer's", ratios(rates[WITH], rates[WITHOUT])),
        *(Row(case, name, "calls a second", tuple(values)) for name, values in rates.items()),
    ]
