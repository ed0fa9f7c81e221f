"""Callers in a process of their own, with all retries off: Shoal's, and grpc's transparent one.

    python -m benchmarks.drain.callers ZOOKEEPER CACHE KIND BUSY RATE

KIND is ``threads`` or ``tasks``. BUSY callers call RATE times a second in all, each with one call
at a time, on four channels. Beside them are idle ones, each on a channel of its own: one that calls
every few seconds, one that has called each replica and is silent until the end, and one that calls
for the first time at the end. It prints ``ready``, and at each line of its input what there was
until then, as JSON; the empty line's answer is the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

import shoal
import shoal.aio
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc

SERVICE = "echo"
NO_RETRIES: dict[str, Any] = {"retry": None, "options": [("grpc.enable_retries", 0)]}
REPLICAS = 3
# Of the busy callers: some share one, and each says its own hello and goodbye.
CHANNELS = 4
# For one call; far beyond what any should take.
TIMEOUT = 20.0
# Between two calls of the caller that calls now and then: longer than a drain's linger.
NOW_AND_THEN = 6.0
REQUEST = echo_pb2.EchoRequest(payload=b"x" * 100)

clock = time.monotonic


@dataclass(slots=True)
class Record:
    """What there was, of all callers of this process."""

    calls: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    servers: Counter[str] = field(default_factory=Counter)

    def answered(self, sent: float, server: str) -> None:
        """A call was."""
        self.calls += 1
        self.seconds.append(clock() - sent)
        self.servers[server] += 1

    def failed(self, who: str, sent: float, error: grpc.RpcError) -> None:
        """A call was not; with all that may tell why."""
        self.calls += 1
        self.failures.append(
            {
                "caller": who,
                "sent": sent,
                "failed": clock(),
                "code": error.code().name,
                "details": error.details(),
                "attempts": [str(each) for each in getattr(error, "attempts", ())],
            }
        )


def document(records: list[Record]) -> dict[str, Any]:
    """What all callers saw."""
    seconds = sorted(each for record in records for each in record.seconds)
    return {
        "calls": sum(each.calls for each in records),
        "failures": [failure for each in records for failure in each.failures],
        "p50_ms": 1000 * seconds[len(seconds) // 2] if seconds else None,
        "p99_ms": 1000 * seconds[len(seconds) * 99 // 100] if seconds else None,
        "slowest_ms": 1000 * seconds[-1] if seconds else None,
        "servers": dict(sum((each.servers for each in records), Counter[str]())),
    }


def beats(interval: float) -> Iterator[float]:
    """When to call next; who is late does not catch up in a burst."""
    at = clock()
    while True:
        at = max(at + interval, clock())
        yield at


class Threads:
    """Blocking callers.

    Args:
        hosts: ZooKeeper's.
        cache: Where the directory keeps its snapshots.
        busy: How many call all the time.
        rate: Calls a second of all of them.
    """

    def __init__(self, hosts: str, cache: str, busy: int, rate: float) -> None:
        self._stop = threading.Event()
        self.records: list[Record] = []
        self._directory = shoal.Directory(hosts, cache_dir=cache)
        self._directory.ready(SERVICE, 60.0, count=REPLICAS)
        shared = [self._stub() for _ in range(CHANNELS)]
        self._silent = self._stub(policy=shoal.RoundRobin())
        self._first = self._stub()
        self._ends = Record()
        self.records.append(self._ends)
        for _ in range(3 * REPLICAS):
            self._call(self._silent, "silent", self._ends)
        self._threads = [
            threading.Thread(
                target=self._steady,
                args=(shared[number % CHANNELS], f"busy-{number}", busy / rate),
            )
            for number in range(busy)
        ]
        self._threads.append(
            threading.Thread(target=self._steady, args=(self._stub(), "rare", NOW_AND_THEN))
        )
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """No more calls, but for the idle ones' last."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for stub, who in ((self._silent, "silent"), (self._first, "first")):
            for _ in range(REPLICAS):
                self._call(stub, who, self._ends)
        self._directory.close()

    def _stub(self, **options: Any) -> Any:
        return echo_pb2_grpc.EchoStub(self._directory.channel(SERVICE, **options, **NO_RETRIES))

    def _steady(self, stub: Any, who: str, interval: float) -> None:
        record = Record()
        self.records.append(record)
        for at in beats(interval):
            if self._stop.wait(max(at - clock(), 0.0)):
                return
            self._call(stub, who, record)

    def _call(self, stub: Any, who: str, record: Record) -> None:
        sent = clock()
        try:
            record.answered(sent, stub.EchoOnce(REQUEST, timeout=TIMEOUT).server)
        except grpc.RpcError as error:
            record.failed(who, sent, error)


class Tasks:
    """The same on an event loop.

    Args:
        directory: Where the replicas are; open.
    """

    def __init__(self, directory: shoal.aio.Directory) -> None:
        self.records: list[Record] = []
        self._ends = Record()
        self.records.append(self._ends)
        self._stop = asyncio.Event()
        self._directory = directory

    async def begin(self, busy: int, rate: float) -> None:
        """Has them call."""
        await self._directory.ready(SERVICE, 60.0, count=REPLICAS)
        shared = [self._stub() for _ in range(CHANNELS)]
        self._silent = self._stub(policy=shoal.RoundRobin())
        self._first = self._stub()
        for _ in range(3 * REPLICAS):
            await self._call(self._silent, "silent", self._ends)
        self._tasks = [
            asyncio.create_task(
                self._steady(shared[number % CHANNELS], f"busy-{number}", busy / rate)
            )
            for number in range(busy)
        ]
        self._tasks.append(asyncio.create_task(self._steady(self._stub(), "rare", NOW_AND_THEN)))

    async def end(self) -> None:
        """No more calls, but for the idle ones' last."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        for stub, who in ((self._silent, "silent"), (self._first, "first")):
            for _ in range(REPLICAS):
                await self._call(stub, who, self._ends)

    def _stub(self, **options: Any) -> Any:
        return echo_pb2_grpc.EchoStub(self._directory.channel(SERVICE, **options, **NO_RETRIES))

    async def _steady(self, stub: Any, who: str, interval: float) -> None:
        record = Record()
        self.records.append(record)
        for at in beats(interval):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), at - clock())
            if self._stop.is_set():
                return
            await self._call(stub, who, record)

    async def _call(self, stub: Any, who: str, record: Record) -> None:
        sent = clock()
        try:
            record.answered(sent, (await stub.EchoOnce(REQUEST, timeout=TIMEOUT)).server)
        except grpc.RpcError as error:
            record.failed(who, sent, error)


def say(line: str) -> None:
    """Prints a line."""
    print(line, flush=True)  # noqa: T201 - a program's answer


def follow(records: Callable[[], list[Record]]) -> None:
    """Answers the lines of the input until the empty one."""
    while sys.stdin.readline().strip():
        say(json.dumps(document(records())))


async def run_tasks(hosts: str, cache: str, busy: int, rate: float) -> None:
    """As the program does, on an event loop."""
    async with shoal.aio.Directory(hosts, cache_dir=cache) as directory:
        tasks = Tasks(directory)
        await tasks.begin(busy, rate)
        say("ready")
        await asyncio.to_thread(follow, lambda: tasks.records)
        await tasks.end()
    say(json.dumps(document(tasks.records)))


def main() -> None:
    """The program."""
    hosts, cache, kind, busy, rate = sys.argv[1:]
    if kind == "tasks":
        asyncio.run(run_tasks(hosts, cache, int(busy), float(rate)))
        return
    threads = Threads(hosts, cache, int(busy), float(rate))
    say("ready")
    follow(lambda: threads.records)
    threads.end()
    say(json.dumps(document(threads.records)))


if __name__ == "__main__":
    main()
