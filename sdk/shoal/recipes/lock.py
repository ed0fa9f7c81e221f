"""A lock among processes, for blocking code."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for
from types import TracebackType
from typing import Self

from shoal import forks
from shoal.directory import Directory
from shoal.errors import CoordinationError, LockError, LockLostError, LockTakenError
from shoal.recipes.claims import locks_path, refused, unheld, who_contends
from shoal.recipes.contention import Contention
from shoal.recipes.tenure import Tenure

logger = logging.getLogger(__name__)

# Longest wait of release() for the node to go, seconds.
GOODBYE = 5.0
# The same after a wait that ended without the lock.
FAREWELL = 1.0


class Lock:
    """One holder at a time, among all processes below the directory's chroot.

        with shoal.Lock(directory, "nightly-report") as lock:
            store.write(report, fence=lock.fence)

    Waiters stand in line; a release wakes the next one and nobody else. A holder can lose the lock
    at any moment: to a pause of its process or network that outlasts its session. `held` says so by
    a clock of its own, without ZooKeeper's word, and it is never true again then. But between a
    look at it and a write there is always time for one more pause; what must not happen twice is
    written with `fence` into a store that refuses an older fence than it has seen.

    An object is one contender: one thread acquires and releases it; others may look at it and wait
    for `lost`. In a forked child the parent's lock is not held.

    Args:
        directory: Whose session and chroot.
        name: The lock's; its nodes are below ``/locks/NAME``.
        who: Who this is, for whoever asks `contenders` or fails to get the lock.
        timeout: Of the ``with`` statement, seconds; None: for as long as it takes.
        on_lost: Called when the lock is lost, with the reason, on a thread of the directory's that
            it must not block.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        *,
        who: str = "",
        timeout: float | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        self._path = locks_path(name)
        self.name = name
        self._directory = directory
        self._who = who
        self._timeout = timeout
        self._on_lost = on_lost
        self._contention: Contention | None = None
        self._tenure: Tenure | None = None
        self._unheld = threading.Event()
        forks.on_fork(self)

    def __repr__(self) -> str:
        return f"<Lock {self.name} {self._tenure or 'not held'}>"

    def __enter__(self) -> Self:
        self.acquire(self._timeout)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def held(self) -> bool:
        """Whether it is held now, as far as our own clock can tell."""
        return self._tenure is not None and self._tenure.held

    @property
    def fence(self) -> int:
        """Grows with each holder of this lock; for the store that enforces it.

        Raises:
            LockError: the lock was not acquired. One that was lost keeps its fence: the store is
                to refuse it.
        """
        if self._tenure is None:
            raise unheld(self.name)
        return self._tenure.fence

    @property
    def lost(self) -> threading.Event:
        """Set when what was acquired last is lost, moments after `held` is False."""
        return self._unheld if self._tenure is None else self._tenure.lost

    def check(self) -> None:
        """Does nothing while the lock is held.

        Raises:
            LockLostError: it was lost; says why.
            LockError: it was not acquired.
        """
        if self._tenure is None:
            raise unheld(self.name)
        if not self._tenure.held:
            raise LockLostError(f"lock {self.name!r} is lost: {self._tenure.over}")

    def acquire(self, timeout: float | None = None, *, wait: bool = True) -> int:
        """Waits for its turn; returns the fence.

        Whatever ends the wait (an error, Ctrl-C, a greenlet that is killed), the place in line is
        given up.

        Args:
            timeout: Seconds; None: for as long as it takes, also while ZooKeeper is away.
            wait: Whether to stand in line when somebody is there already.

        Raises:
            LockTimeoutError: it was not had in time; says who was ahead, and how ZooKeeper is.
            LockTakenError: somebody is there already, and ``wait`` is False.
            LockError: this object holds the lock, or waits for it, already.
            CoordinationError: ZooKeeper refuses it.
            DirectoryClosedError: the directory was closed.
        """
        if self._contention is not None:
            raise LockError(
                f"lock {self.name!r} is held or awaited through this object already; release it "
                "first, or make another object for another contender"
            )
        desk = self._directory.desk()
        if desk.worker.inside:
            raise LockError(f"lock {self.name!r} can't be awaited on the directory's own thread")
        contention = self._contention = Contention(
            desk,
            f"{desk.chroot}{self._path}",
            self._who.encode(),
            wait=wait,
            lost=self._told,
        )
        try:
            tenure = self._tenure = contention.outcome.result(timeout)
        except TimeoutError as error:
            self._give_up(contention, FAREWELL if desk.session.connected else 0.0)
            raise refused(self.name, timeout, contention, desk) from error
        except LockTakenError:
            self._give_up(contention, FAREWELL)
            raise
        except BaseException:
            self._give_up(contention, 0.0)
            raise
        return tenure.fence

    def release(self, timeout: float = GOODBYE) -> bool:
        """Lets the next one in; whether it was held until now. Never raises; idempotent.

        While ZooKeeper is away it warns and returns after ``timeout`` seconds: the node goes when
        the connection is back, or with the session.
        """
        contention, tenure = self._contention, self._tenure
        self._contention = self._tenure = None
        if contention is None:
            return False
        held = tenure is not None and tenure.end()
        gone = contention.leave()
        if not self._directory.on_own_thread():
            try:
                gone.result(timeout)
            except TimeoutError:
                logger.warning(
                    "lock %r: its node could not be deleted within %g s (ZooKeeper is %s); it goes"
                    " when the connection is back, or with the session",
                    self.name,
                    timeout,
                    self._directory.describe(),
                )
        return held

    def contenders(self, timeout: float = 10.0) -> list[str]:
        """What the holder and those in line, in their order, say who they are.

        Raises:
            CoordinationError: ZooKeeper does not tell within ``timeout`` seconds.
            DirectoryClosedError: the directory was closed.
        """
        desk = self._directory.desk()
        asking = desk.run(who_contends(desk, f"{desk.chroot}{self._path}"))
        try:
            return asking.outcome.result(timeout)
        except (TimeoutError, CancelledError) as error:
            desk.worker.call_soon(asking.stop)
            raise CoordinationError(
                f"who contends for lock {self.name!r} is not known within {timeout:g} s: ZooKeeper"
                f" is {self._directory.describe()}"
            ) from error

    def after_fork(self) -> None:
        """In a forked child: what the parent holds, or waits for, is the parent's."""
        self._contention = self._tenure = None
        self._unheld = threading.Event()

    def _give_up(self, contention: Contention, farewell: float) -> None:
        self._contention = self._tenure = None
        gone = contention.leave()
        # So that whoever looks next does not find us still in line.
        wait_for([gone], farewell)

    def _told(self, reason: str) -> None:
        logger.warning("lock %r is lost: %s", self.name, reason)
        if self._on_lost is not None:
            self._on_lost(reason)
