"""Replicas come and go in a real ZooKeeper: how soon callers know.

There are three. A fourth comes, is called, and the oldest gets SIGTERM: again and again. Each is a
`shoal.Server` in a process of its own. All times are of the machine's one monotonic clock.
"""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient

import shoal
from benchmarks.paired.bench import Bench
from benchmarks.paired.callers import OURS, REQUEST, SERVICE, TIMEOUT
from benchmarks.paired.processes import Program
from benchmarks.paired.rows import Row, at_most
from shoal.testing.installed import ZooKeeperError
from shoal.testing.zookeeper import ZooKeeperServer
from shoal_protos.testing.v1 import echo_pb2_grpc

TIMES = 50
REPLICAS = 3
THREADS = 4
# Between two calls of a thread, seconds: some 1000 calls a second in all, so that neither the
# machine nor the wait for a turn is what is measured.
PAUSE = 0.002
# Between one that came and one that goes, and before the next comes, seconds.
SETTLE = 0.25


def membership(bench: Bench) -> list[Row]:
    """A new replica's first call, a leaving one's last, and ZooKeeper's own time."""
    case = "replicas come and go"
    firsts, lasts, watches = [], [], []
    with ExitStack() as stack:
        try:
            zookeeper = stack.enter_context(ZooKeeperServer())
        except ZooKeeperError as error:
            bench.remark(f"The rows of '{case}' are missing: {error}")
            return []
        cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-bench-"))
        hosts = f"{zookeeper.hosts}/bench"
        start = partial(Program, "benchmarks.paired.replica", hosts, cache)
        # Ended after the calls to them have, those included that come later.
        living = stack.enter_context(ExitStack())
        replicas = [living.enter_context(start()) for _ in range(REPLICAS)]
        for replica in replicas:
            replica.line()
        echo_time = stack.enter_context(_watched(zookeeper.hosts))
        stack.enter_context(_calling(hosts, cache))
        for replica in replicas:
            replica.line()
        for _ in bench.each(case, bench.amount(TIMES, 2)):
            newcomer = living.enter_context(start())
            replicas.append(newcomer)
            called = json.loads(_other_line(newcomer))
            firsts.append(1e3 * (called["first"] - called["served"]))
            time.sleep(SETTLE)
            leaver = replicas.pop(0)
            left = time.monotonic()
            leaver.signal(signal.SIGTERM)
            time.sleep(SETTLE)
            watches.append(1e3 * echo_time())
            lasts.append(1e3 * max(json.loads(leaver.line())["last"] - left, 0.0))
            leaver.end()
    return [
        Row(case, OURS, "a new replica's first call, ms", tuple(firsts), at_most(100.0)),
        Row(case, OURS, "last new call after SIGTERM, ms", tuple(lasts), at_most(50.0)),
        Row(case, "ZooKeeper alone", "create to watch, ms", tuple(watches)),
    ]


def _other_line(newcomer: Program) -> str:
    """What it says beside ``announced``, which may come after its first call or before."""
    lines = [newcomer.line(), newcomer.line()]
    lines.remove("announced")
    return lines[0]


@contextmanager
def _calling(hosts: str, cache: str) -> Iterator[None]:
    """Calls all the time, on threads; a call that fails is an error at the end."""
    ended = threading.Event()
    failures: list[Exception] = []

    def work(echo: Any) -> None:
        while not ended.wait(PAUSE):
            try:
                echo(REQUEST, timeout=TIMEOUT, wait_for_ready=True)
            except Exception as error:  # noqa: BLE001 - raised below, on the main thread
                failures.append(error)
                return

    with shoal.Directory(hosts, cache_dir=Path(cache)) as directory:
        directory.ready(SERVICE, count=REPLICAS)
        with directory.channel(SERVICE) as channel:
            echo = echo_pb2_grpc.EchoStub(channel).Echo
            workers = [threading.Thread(target=work, args=(echo,)) for _ in range(THREADS)]
            for worker in workers:
                worker.start()
            try:
                yield
            finally:
                ended.set()
                for worker in workers:
                    worker.join()
    if failures:
        raise failures[0]


@contextmanager
def _watched(hosts: str) -> Iterator[Any]:
    """Measures how long a watch takes to tell of a new node, in the same process."""
    seen = threading.Event()
    at = [0.0]
    writer, reader = KazooClient(hosts=hosts), KazooClient(hosts=hosts)

    def changed(_: object) -> None:
        at[0] = time.monotonic()
        seen.set()

    def measure() -> float:
        seen.clear()
        reader.get_children("/watched", watch=changed)
        began = time.monotonic()
        writer.create("/watched/node-", ephemeral=True, sequence=True)
        if not seen.wait(TIMEOUT):
            raise TimeoutError("ZooKeeper did not tell of a new node")
        return at[0] - began

    try:
        writer.start()
        reader.start()
        writer.ensure_path("/watched")
        yield measure
    finally:
        for client in (writer, reader):
            client.stop()
            client.close()
