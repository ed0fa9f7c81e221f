"""One thread that does things soon or later, one at a time."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

Task = Callable[[], object]


class Worker:
    """Runs tasks in the order of their times on a daemon thread that it starts at the first task.

    What has to leave another library's thread (ZooKeeper's event thread, grpc's callback threads)
    or wait for a moment is handed over here. A task that raises is logged, and the next one runs.

    Args:
        name: Of the thread, for people who read stack dumps.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: list[tuple[float, int, Task]] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def inside(self) -> bool:
        """Whether the caller runs on this very thread, and so must not wait for it."""
        return self._thread is threading.current_thread()

    def call_soon(self, task: Task) -> None:
        """Runs ``task`` as soon as the thread is free."""
        self.call_later(0.0, task)

    def call_later(self, delay: float, task: Task) -> None:
        """Runs ``task`` in ``delay`` seconds. After `stop` it does nothing."""
        with self._wake:
            if self._stopped:
                return
            heapq.heappush(self._tasks, (time.monotonic() + delay, next(self._order), task))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._wake.notify()

    def stop(self, timeout: float = 5.0) -> None:
        """Drops what has not run and waits for what is running, unless called from there."""
        with self._wake:
            self._stopped = True
            self._tasks.clear()
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except Exception:
                logger.exception("%s: a task failed", self._name)

    def _next(self) -> Task | None:
        with self._wake:
            while not self._stopped:
                if not self._tasks:
                    self._wake.wait()
                    continue
                due = self._tasks[0][0] - time.monotonic()
                if due <= 0.0:
                    return heapq.heappop(self._tasks)[2]
                self._wake.wait(due)
        return None
