"""A lock among processes, for asyncio code: `shoal.Lock` with its waits awaited."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from shoal import forks
from shoal.aio.directory import Directory
from shoal.errors import LockError, LockLostError, LockTakenError
from shoal.recipes.claims import locks_path, refused, unheld
from shoal.recipes.contention import Contention
from shoal.recipes.tenure import Tenure

logger = logging.getLogger(__name__)

# Longest wait of release() for the node to go, seconds.
GOODBYE = 5.0


def tell(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    """Calls something in a loop, from any thread; in one that has ended nobody is to be told."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(what)


class Lock:
    """As `shoal.Lock`: one holder at a time, no herd, a fence, and a clock of its own.

        async with shoal.aio.Lock(directory, "nightly-report") as lock:
            await store.write(report, fence=lock.fence)

    A task that is cancelled while it waits leaves the line; one that is cancelled while it holds
    releases in ``async with``. An object is one contender, of one event loop.

    Args:
        directory: Whose session and chroot.
        name: The lock's; its nodes are below ``/locks/NAME``, and blocking locks wait there too.
        who: Who this is, for whoever asks for contenders or fails to get the lock.
        timeout: Of the ``async with`` statement, seconds; None: for as long as it takes.
        on_lost: Called when the lock is lost, with the reason, in the event loop.
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
        self._directory = directory.sync
        self._who = who
        self._timeout = timeout
        self._on_lost = on_lost
        self._contention: Contention | None = None
        self._tenure: Tenure | None = None
        self.lost = asyncio.Event()
        forks.on_fork(self)

    def __repr__(self) -> str:
        return f"<shoal.aio.Lock {self.name} {self._tenure or 'not held'}>"

    async def __aenter__(self) -> Self:
        await self.acquire(self._timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()

    @property
    def held(self) -> bool:
        """Whether it is held now, as far as our own clock can tell."""
        return self._tenure is not None and self._tenure.held

    @property
    def fence(self) -> int:
        """Grows with each holder of this lock; for the store that enforces it.

        Raises:
            LockError: the lock was not acquired. One that was lost keeps its fence.
        """
        if self._tenure is None:
            raise unheld(self.name)
        return self._tenure.fence

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

    async def acquire(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking lock's
        *,
        wait: bool = True,
    ) -> int:
        """Waits for its turn; returns the fence.

        Whatever ends the wait, cancellation too, the place in line is given up.

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
        loop = asyncio.get_running_loop()
        self.lost.clear()
        contention = self._contention = Contention(
            desk,
            f"{desk.chroot}{self._path}",
            self._who.encode(),
            wait=wait,
            lost=lambda reason: tell(loop, partial(self._told, contention, reason)),
        )
        try:
            async with asyncio.timeout(timeout):
                # Shielded: what is cancelled is our wait; the outcome is the contention's.
                outcome = asyncio.wrap_future(contention.outcome)
                tenure = self._tenure = await asyncio.shield(outcome)
        except TimeoutError as error:
            await self._give_up(contention)
            raise refused(self.name, timeout, contention, desk) from error
        except LockTakenError:
            await self._give_up(contention)
            raise
        except BaseException:
            # The node goes in the background; a cancelled task is not kept.
            self._contention = self._tenure = None
            contention.leave()
            raise
        return tenure.fence

    async def release(
        self,
        timeout: float = GOODBYE,  # noqa: ASYNC109 - as the blocking lock's
    ) -> bool:
        """Lets the next one in; whether it was held until now. Idempotent.

        While ZooKeeper is away it warns and returns after ``timeout`` seconds: the node goes when
        the connection is back, or with the session. A cancelled release has begun all the same.
        """
        contention, tenure = self._contention, self._tenure
        self._contention = self._tenure = None
        if contention is None:
            return False
        held = tenure is not None and tenure.end()
        gone = asyncio.wrap_future(contention.leave())
        _, left = await asyncio.wait([gone], timeout=timeout)
        if left:
            logger.warning(
                "lock %r: its node could not be deleted within %g s (ZooKeeper is %s); it goes when"
                " the connection is back, or with the session",
                self.name,
                timeout,
                self._directory.describe(),
            )
        return held

    def after_fork(self) -> None:
        """In a forked child: what the parent holds, or waits for, is the parent's."""
        self._contention = self._tenure = None

    async def _give_up(self, contention: Contention) -> None:
        self._contention = self._tenure = None
        # So that whoever looks next does not find us still in line.
        await asyncio.wait([asyncio.wrap_future(contention.leave())], timeout=1.0)

    def _told(self, contention: Contention, reason: str) -> None:
        if contention is not self._contention:
            return  # It was released meanwhile.
        logger.warning("lock %r is lost: %s", self.name, reason)
        self.lost.set()
        if self._on_lost is not None:
            self._on_lost(reason)
