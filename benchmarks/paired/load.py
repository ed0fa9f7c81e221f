"""Closed loops: callers that call again as soon as they were answered."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

clock = time.perf_counter


def serial(call: Callable[[], object], calls: int) -> float:
    """Seconds that so many calls take, one after the other."""
    began = clock()
    for _ in range(calls):
        call()
    return clock() - began


async def serial_aio(call: Callable[[], Any], calls: int) -> float:
    """The same for asyncio."""
    began = clock()
    for _ in range(calls):
        await call()
    return clock() - began


def threaded(call: Callable[[], object], threads: int, calls: int) -> float:
    """Calls a second of so many threads, each with its part of ``calls``."""
    start = threading.Barrier(threads + 1)
    share = calls // threads

    def work() -> None:
        start.wait()
        for _ in range(share):
            call()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = clock()
    for worker in workers:
        worker.join()
    return share * threads / (clock() - began)


async def tasked(call: Callable[[], Any], tasks: int, calls: int) -> float:
    """Calls a second of so many asyncio tasks, each with its part of ``calls``."""
    share = calls // tasks

    async def work() -> None:
        for _ in range(share):
            await call()

    began = clock()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return share * tasks / (clock() - began)


class Ended(NamedTuple):
    """One call that has ended.

    Attributes:
        method: Its name, as the case gave it.
        at: When, seconds since the load began.
        latency: How long it took, seconds.
        code: grpc's status; None when it was answered.
    """

    method: str
    at: float
    latency: float
    code: grpc.StatusCode | None


@dataclass(frozen=True, slots=True)
class Run:
    """All calls of one load, in the order of their ends."""

    calls: tuple[Ended, ...]
    seconds: float

    @property
    def rate(self) -> float:
        """Answered calls a second."""
        return sum(call.code is None for call in self.calls) / self.seconds

    def failed(self, method: str) -> int:
        """How many calls of a method failed."""
        return sum(call.code is not None for call in self.calls if call.method == method)

    def worst(self, method: str, since: float = 0.0, until: float = math.inf) -> float:
        """The longest call of a method among those that ended between two times, seconds."""
        found = (call for call in self.calls if call.method == method and since <= call.at < until)
        return max((call.latency for call in found), default=0.0)

    def quantile(self, share: float) -> float:
        """Latency that this share of the calls kept below, seconds."""
        return quantile((call.latency for call in self.calls), share)


def quantile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def loaded(
    methods: dict[str, Callable[[], object]],
    *,
    threads: int,
    seconds: float,
    events: Iterable[tuple[float, Callable[[], object]]] = (),
) -> Run:
    """Threads that call the methods in turn, while things happen at set times.

    Args:
        methods: Name → call.
        threads: How many call at once.
        seconds: How long they begin new calls.
        events: Seconds from the start, and what happens then, on this thread; in order of time.
    """
    began = clock()
    until = began + seconds
    records: list[list[Ended]] = [[] for _ in range(threads)]

    def work(records: list[Ended]) -> None:
        while True:
            for name, call in methods.items():
                sent = clock()
                if sent >= until:
                    return
                code = None
                try:
                    call()
                except grpc.RpcError as error:
                    code = error.code()
                now = clock()
                records.append(Ended(name, now - began, now - sent, code))

    workers = [threading.Thread(target=work, args=(each,)) for each in records]
    for worker in workers:
        worker.start()
    try:
        for at, happen in events:
            time.sleep(max(began + at - clock(), 0.0))
            happen()
    finally:
        for worker in workers:
            worker.join()
    ended = sorted((call for each in records for call in each), key=lambda call: call.at)
    return Run(tuple(ended), clock() - began)
