"""A pool's worker processes, and the descriptors that its thread waits on."""

from __future__ import annotations

import itertools
import logging
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from shoal_gateway.appmanager import supervisor, survivors
from shoal_gateway.appmanager.apart import Accounts
from shoal_gateway.appmanager.workers import Worker

logger = logging.getLogger(__name__)

# Seconds until a worker that could not start is tried again.
AGAIN = 1.0
# Environment variable that workers and what they start are born with: the pool's directory.
POOL_MARK = "SHOAL_POOL"


class Crew:
    """As many workers as there are slots. Used by one thread, but for `wake`.

    Args:
        python: The flavor's interpreter.
        place: Where workers have their directories; this manager's own.
        environment: Of workers.
        size: How many.
        accounts: Of workers; None: they are their manager's.
        cache: What their own begin as, where they have accounts.
    """

    def __init__(
        self,
        python: str,
        place: Path,
        environment: Mapping[str, str],
        size: int,
        accounts: Accounts | None = None,
        cache: Path | None = None,
    ) -> None:
        self._python = python
        self._accounts = accounts
        self._cache = cache
        self._place = place
        self._environment = {**environment, POOL_MARK: str(place)}
        self._size = size
        self._lock = threading.Lock()
        self._awake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._awake, select.EPOLLIN)
        self._workers: dict[int, Worker] = {}
        self._numbers = itertools.count(1)
        self._not_before = 0.0

    def wake(self) -> None:
        """Ends `wait` now. From any thread, at any time."""
        with self._lock:
            if self._awake >= 0:
                os.eventfd_write(self._awake, 1)

    def wait(self, seconds: float) -> list[tuple[Worker, bool]]:
        """Workers that have something to say, or have ended (true); empty after ``seconds``."""
        found = []
        for descriptor, _ in self._poll.poll(seconds):
            if descriptor == self._awake:
                os.eventfd_read(self._awake)
            elif (speaker := self._workers.get(descriptor)) is not None:
                found.append((speaker, descriptor == speaker.end))
        return found

    def all(self) -> list[Worker]:
        """Those that were started and not buried."""
        return list(dict.fromkeys(self._workers.values()))

    def has(self, one: Worker) -> bool:
        """Whether a worker is not buried yet."""
        return one.end in self._workers and self._workers[one.end] is one

    def fill(self, now: float) -> None:
        """Starts workers for all slots; where they can't start, one try at a time."""
        while len(self.all()) < self._size and now >= self._not_before:
            directory = self._place / str(next(self._numbers))
            try:
                if self._accounts is not None:
                    self._let_pass()
                made = Worker(
                    self._python, directory, self._environment, self._accounts, self._cache
                )
            except OSError as error:
                logger.warning("a worker could not be started, trying again: %s", error)
                self._not_before = now + AGAIN
                return
            for descriptor in (made.fileno(), made.end):
                self._workers[descriptor] = made
                self._poll.register(descriptor, select.EPOLLIN)

    def _let_pass(self) -> None:
        """Lets workers through to their directories, where they are not their manager's."""
        self._place.mkdir(parents=True, exist_ok=True)
        for above in (self._place, self._place.parent):
            above.chmod(0o711)

    def bury(self, gone: Worker) -> int:
        """Lets go of a worker and waits for its end; its exit code, or minus the signal."""
        for descriptor in (gone.fileno(), gone.end):
            del self._workers[descriptor]
            self._poll.unregister(descriptor)
        code = gone.bury()
        if not gone.ready and not gone.doomed:
            logger.warning("a worker can't start: %s", gone.last_words() or f"exit code {code}")
            self._not_before = time.monotonic() + AGAIN
        return code

    def close(self) -> None:
        """Lets go of the descriptors and the place; all workers are buried."""
        with self._lock:
            os.close(self._awake)
            self._awake = -1
        self._poll.close()
        shutil.rmtree(self._place, ignore_errors=True)


def place_of(root: Path, flavor: str) -> Path:
    """Where the workers of this process have their directories."""
    pid = os.getpid()
    return root / "pool" / flavor / f"{pid}.{supervisor.start_ticks(pid)}"


def bury_others(parent: Path) -> None:
    """Ends what is left of the pools of managers that have ended, and clears it away.

    Their workers ended with them; what functions had started may not have.
    """
    for place in sorted(parent.iterdir()) if parent.is_dir() else []:
        pid, _, started = place.name.partition(".")
        if pid.isdigit() and str(supervisor.start_ticks(int(pid))) == started:
            continue
        supervisor.send(survivors.marked(str(place), POOL_MARK), signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)
