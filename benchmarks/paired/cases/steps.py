"""Where the microseconds of a call go, ours and bare grpcio's.

Our steps are timed one by one in loops, without grpc: its multi-callable is put in our place by
one that does nothing. Bare grpcio's are told by clocks: of the wall, of the caller's thread, and of
the process. Nothing is traced, for tracing takes longer than what it would trace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.paired.bench import Bench, turned
from benchmarks.paired.callers import (
    DIRECT,
    OURS,
    REQUEST,
    SERVICE,
    TIMEOUT,
    aio_channel,
    nowhere,
    servers,
    stub,
)
from benchmarks.paired.load import clock, serial, serial_aio
from benchmarks.paired.rows import Row, ratios
from shoal.channel import DEFAULT_RETRY, Channel
from shoal.lineage import passed_on
from shoal.testing import FixedDirectory
from shoal_balancer import Outcome
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc

RESPONSE = echo_pb2.EchoResponse(payload=REQUEST.payload)
RECEIVED = RESPONSE.SerializeToString()

# Calls in a row, before the other has a turn.
BLOCK = 50

Steps = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds by three clocks: the wall's, the caller's thread's and the process's."""

    wall: float = 0.0
    thread: float = 0.0
    process: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.wall + other.wall, self.thread + other.thread, self.process + other.process
        )

    def steps(self, calls: int) -> dict[str, float]:
        """Microseconds of one call."""
        each = 1e6 / calls
        return {
            "a call": each * self.wall,
            "the caller's thread at work": each * self.thread,
            "grpc's threads at work": each * (self.process - self.thread),
            "waiting for the server": each * (self.wall - self.process),
        }


class Answered:
    """What stands for a call of ``grpc.aio``: answered already."""

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Nobody has to be told."""

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return RESPONSE


def blocking(bench: Bench) -> list[Row]:
    """A blocking call."""
    case = "the time of a call, blocking"
    count = bench.amount(20_000, 200)
    with servers(0.0) as started, ExitStack() as stack:
        targets = [started[0].target]
        calls = {
            name: partial(stack.enter_context(stub(name, targets)).Echo, REQUEST, timeout=TIMEOUT)
            for name in (OURS, DIRECT)
        }
        directory = FixedDirectory({SERVICE: [nowhere(number) for number in range(3)]})
        channel = stack.enter_context(Channel(directory, SERVICE))
        echo = echo_pb2_grpc.EchoStub(channel).Echo
        _without_grpc(channel, echo, _answer)
        for call in calls.values():
            serial(call, 100)
        ours: Steps = {}
        spent: dict[str, Steps] = {name: {} for name in calls}
        for number in bench.each(case):
            _note(ours, _our_steps(channel, echo, count))
            whole = _each(partial(echo, REQUEST, timeout=TIMEOUT), count)
            empty = _each(partial(_answer, REQUEST, TIMEOUT, None, None, None, None), count)
            _note(ours, {"all of it, without grpc": whole - empty})
            total = {name: Spent() for name in calls}
            for block in range(bench.amount(40, 2)):
                for name in turned(list(calls), number + block):
                    began = _now()
                    serial(calls[name], BLOCK)
                    total[name] += _since(began)
            for name in calls:
                _note(spent[name], total[name].steps(bench.amount(40, 2) * BLOCK))
    return _rows(case, ours, spent)


def asynchronous(bench: Bench) -> list[Row]:
    """A call of ``grpc.aio``."""
    with servers(0.0) as started:
        return asyncio.run(_asynchronous(bench, [started[0].target]))


async def _asynchronous(bench: Bench, targets: list[str]) -> list[Row]:
    case = "the time of a call, asyncio"
    count = bench.amount(20_000, 200)
    idle = [nowhere(number) for number in range(3)]
    async with (
        aio_channel(OURS, idle) as channel,
        aio_channel(OURS, targets) as mine,
        aio_channel(DIRECT, targets) as bare,
    ):
        echo = echo_pb2_grpc.EchoStub(channel).Echo
        answer = Answered()
        _without_grpc(channel, echo, lambda *_, **__: answer)
        calls = {
            name: partial(echo_pb2_grpc.EchoStub(each).Echo, REQUEST, timeout=TIMEOUT)
            for name, each in ((OURS, mine), (DIRECT, bare))
        }
        for call in calls.values():
            await serial_aio(call, 100)
        ours: Steps = {}
        spent: dict[str, Steps] = {name: {} for name in calls}
        for number in bench.each(case):
            whole = await serial_aio(partial(echo, REQUEST, timeout=TIMEOUT), count)
            empty = await serial_aio(lambda: answer, count)
            _note(ours, {"all of it, without grpc": 1e6 * (whole - empty) / count})
            total = {name: Spent() for name in calls}
            for block in range(bench.amount(40, 2)):
                for name in turned(list(calls), number + block):
                    began = _now()
                    await serial_aio(calls[name], BLOCK)
                    total[name] += _since(began)
            for name in calls:
                _note(spent[name], total[name].steps(bench.amount(40, 2) * BLOCK))
    return _rows(case, ours, spent)


def _answer(*_: object) -> Any:
    return RESPONSE


def _without_grpc(channel: Any, echo: Any, answer: Callable[..., Any]) -> None:
    for node in channel.pool.balancer.snapshot.ready:
        node.endpoint.callables[echo.key] = answer
        node.begin()
        node.end(0.001, Outcome.OK, channel.pool.clock())


def _our_steps(channel: Channel, echo: Any, count: int) -> dict[str, float]:
    pool = channel.pool
    now = pool.clock()
    node = pool.pick(now)
    if node is None:
        raise RuntimeError("there are replicas, and none was picked")
    callables, key = node.endpoint.callables, echo.key

    def begin_and_end() -> None:
        node.begin()
        node.end(0.001, Outcome.OK, now)

    def nothing() -> None:
        pass

    loop = _each(nothing, count)
    return {
        "two looks at the clock": 2 * (_each(pool.clock, count) - loop),
        "the pick": _each(partial(pool.pick, now), count) - loop,
        "begin and end": _each(begin_and_end, count) - loop,
        "the replica's multi-callable": _each(partial(callables.get, key), count) - loop,
        "metadata to pass on": _each(partial(passed_on, None), count) - loop,
        "a deposit for retries": _each(DEFAULT_RETRY.budget.deposit, count) - loop,
        "(grpc's) request to bytes": _each(REQUEST.SerializeToString, count) - loop,
        "(grpc's) bytes to response": _each(partial(type(RESPONSE).FromString, RECEIVED), count)
        - loop,
    }


def _each(work: Callable[[], object], count: int) -> float:
    """Microseconds of one."""
    began = clock()
    for _ in range(count):
        work()
    return 1e6 * (clock() - began) / count


def _now() -> Spent:
    return Spent(clock(), time.thread_time(), time.process_time())


def _since(began: Spent) -> Spent:
    now = _now()
    return Spent(now.wall - began.wall, now.thread - began.thread, now.process - began.process)


def _note(steps: Steps, found: dict[str, float]) -> None:
    for name, value in found.items():
        steps.setdefault(name, []).append(value)


def _rows(case: str, ours: Steps, spent: dict[str, Steps]) -> list[Row]:
    whole = [each["a call"] for each in spent.values()]
    return [
        *(
            Row(case, name, f"{step}, µs", tuple(values))
            for name, steps in spent.items()
            for step, values in steps.items()
        ),
        *(Row(case, OURS, f"{step}, µs", tuple(values)) for step, values in ours.items()),
        Row(case, DIRECT, "latency on one server ÷ peer's", ratios(*whole)),
    ]
