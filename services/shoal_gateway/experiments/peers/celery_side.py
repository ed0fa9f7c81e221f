"""The peer: Celery with Redis, acknowledging late, its log appended to the disk every second."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from shoal.testing.installed import free_port
from shoal_gateway.experiments.peers import tasks
from shoal_gateway.experiments.peers.sides import WORKERS, Meter, Round, children

# Results that are asked for with one call.
PAGE = 1000
# Seconds between looks for results: as soon as the last look ended, nearly.
LOOK = 0.01
PATIENCE = 60.0


class MissingError(Exception):
    """Redis is not installed."""


class CelerySide:
    """A Redis server and a Celery worker with its processes.

    Args:
        directory: For Redis' data and the logs.
    """

    name = "Celery"

    def __init__(self, directory: Path) -> None:
        program = shutil.which("redis-server") or shutil.which("redis-server", path="/usr/bin")
        if program is None:
            raise MissingError("redis-server is not installed: sudo apt-get install redis-server")
        directory.mkdir(parents=True, exist_ok=True)
        self._program = program
        self._directory = directory
        self._port = free_port()
        self._url = f"redis://127.0.0.1:{self._port}/0"
        self.redis = redis.Redis(port=self._port)
        self.broker = self.start_broker()
        self.worker = self.start_worker()
        self.app = tasks.connected(self._url, results="disabled://")

    def start_broker(self) -> subprocess.Popen[bytes]:
        """Starts Redis on what it has on disk, and waits until it answers."""
        with (self._directory / "redis.log").open("ab") as log:
            self.broker = subprocess.Popen(
                [
                    self._program,
                    *("--port", str(self._port), "--bind", "127.0.0.1"),
                    *("--dir", str(self._directory), "--save", ""),
                    *("--appendonly", "yes", "--appendfsync", "everysec"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._until(self._pings, "Redis")
        return self.broker

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Starts the Celery worker and waits until it takes tasks."""
        with (self._directory / "celery.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [
                    *(
                        sys.executable,
                        "-m",
                        "celery",
                        "-A",
                        "shoal_gateway.experiments.peers.tasks",
                        "worker",
                    ),
                    *("--pool", "prefork", "--concurrency", str(WORKERS)),
                    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                    *("--loglevel", "WARNING"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SHOAL_PEER_REDIS": self._url},
            )
        self._until(lambda: len(children(self.worker.pid)) >= WORKERS, "Celery's workers")
        return self.worker

    def close(self) -> None:
        """Ends both."""
        self.app.close()
        self.redis.close()
        for process in (self.worker, self.broker):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(15.0)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def meter(self) -> Meter:
        """CPU time of all that takes part."""
        return Meter(
            {
                "redis": [self.broker.pid],
                "worker": [self.worker.pid],
                "workers": children(self.worker.pid),
                "client": [os.getpid()],
            }
        )

    def run(self, jobs: int, *, single: bool) -> Round:  # noqa: ARG002 - Celery has one way
        """Has so many no-op tasks done."""
        meter = self.meter()
        began = time.perf_counter()
        ids = self.submit(tasks.NOOP, jobs)
        submitted = time.perf_counter() - began
        left = self.unended(ids, PATIENCE)
        if left:
            raise RuntimeError(f"{len(left)} of {jobs} tasks have no result after {PATIENCE:g} s")
        took = time.perf_counter() - began
        cpu = meter.per_job(jobs)
        if bad := self.failed(ids):
            raise RuntimeError(f"{bad} of {jobs} no-op tasks failed, so their rate is none")
        self.forget(ids)
        return Round(jobs, submitted, took, cpu)

    def submit(self, task: str, jobs: int, *arguments: Any) -> list[str]:
        """Sends tasks through one producer, which is the fastest way; their ids."""
        with self.app.producer_pool.acquire(block=True) as producer:
            return [
                self.app.send_task(task, arguments, producer=producer, add_to_parent=False).id
                for _ in range(jobs)
            ]

    def unended(self, ids: Sequence[str], patience: float) -> list[str]:
        """Waits until all have a result; those that have none in time."""
        left = list(ids)
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            page = left[:PAGE]
            try:
                found = self.redis.mget([f"celery-task-meta-{each}" for each in page])
            except redis.ConnectionError:
                found = [None] * len(page)
            missing = [each for each, value in zip(page, found, strict=True) if value is None]
            if len(missing) == len(page):
                # Nothing new among the oldest; those behind them may be there all the same.
                left = [*left[PAGE:], *page] if len(left) > PAGE else left
            else:
                left = [*missing, *left[PAGE:]]
            if missing:
                # Redis would tell, by a subscription for each task; that costs more than to ask.
                time.sleep(LOOK)
        return left

    def failed(self, ids: Sequence[str]) -> int:
        """How many of those that have a result have another than success."""
        found = self.redis.mget([f"celery-task-meta-{each}" for each in ids])
        return sum(json.loads(each)["status"] != "SUCCESS" for each in found if each is not None)

    def forget(self, ids: Sequence[str]) -> None:
        """Removes results, so that each round finds Redis as small as the first."""
        for at in range(0, len(ids), PAGE):
            self.redis.delete(*(f"celery-task-meta-{each}" for each in ids[at : at + PAGE]))

    def _pings(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.RedisError:
            return False

    def _until(self, done: Any, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not start; see the logs in {self._directory}")
            time.sleep(0.02)  # another's process: there is no event for it


@contextmanager
def running(directory: Path) -> Iterator[CelerySide]:
    """Both, until the block ends."""
    side = CelerySide(directory)
    try:
        yield side
    finally:
        side.close()
