"""Leadership for asyncio code: `shoal.Leadership` with a coroutine that leads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Self

from shoal.aio.directory import Directory
from shoal.aio.lock import tell
from shoal.errors import CoordinationError, DirectoryClosedError, LockLostError, ShoalError
from shoal.recipes.claims import leaders_path
from shoal.recipes.contention import Contention
from shoal.recipes.leadership import AGAIN_FIRST, AGAIN_LAST, GOODBYE
from shoal.recipes.tenure import Tenure

logger = logging.getLogger(__name__)


class Term:
    """As `shoal.Term`, for a coroutine.

    Attributes:
        fence: Grows from leader to leader; for the store that enforces it.
        over: Set when the coroutine is to return.
    """

    def __init__(self, name: str, tenure: Tenure) -> None:
        self.fence = tenure.fence
        self.over = asyncio.Event()
        self._name = name
        self._tenure = tenure

    def __repr__(self) -> str:
        return f"<Term of {self._name} fence={self.fence} {self._tenure.over or 'leads'}>"

    @property
    def leads(self) -> bool:
        """Whether it lasts, by our own clock; never True again once it was False."""
        return self._tenure.held

    def check(self) -> None:
        """Does nothing while it lasts.

        Raises:
            LockLostError: it was lost, or is being given up; says why.
        """
        if not self._tenure.held:
            raise LockLostError(f"leadership of {self._name!r} is over: {self._tenure.over}")

    async def wait(self, seconds: float) -> bool:
        """Sleeps, but not beyond the end; whether the coroutine is to return."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)
        return self.over.is_set()


class Leadership:
    """As `shoal.Leadership`: a coroutine that runs in one process at a time.

        async def reap(term: shoal.aio.Term) -> None:
            while not await term.wait(1.0):
                await store.expire_leases(fence=term.fence)

        async with shoal.aio.Leadership(directory, "reaper", reap):
            await serve()

    ``term.over`` tells it to return; what does not look is not cancelled, for half of its work may
    be done. `close` may cancel it, after ``timeout`` seconds.

    Args:
        directory: Whose session and chroot.
        name: Of what is led; the candidates' nodes are below ``/leaders/NAME``.
        lead: The coroutine function.
        who: Who this is, for whoever looks at the nodes.
        rng: Spreads candidacies.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        lead: Callable[[Term], Awaitable[object]],
        *,
        who: str = "",
        rng: random.Random | None = None,
    ) -> None:
        self._path = leaders_path(name)
        self.name = name
        self._directory = directory.sync
        self._lead = lead
        self._who = who
        self._rng = rng or random.Random()  # noqa: S311 - it spreads load, it keeps no secret
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._contention: Contention | None = None
        self._term: Term | None = None

    def __repr__(self) -> str:
        return f"<shoal.aio.Leadership {self.name} {self._term or 'does not lead'}>"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def leads(self) -> bool:
        """Whether this process leads now, as far as our own clock can tell."""
        return self._term is not None and self._term.leads

    def start(self) -> None:
        """Becomes a candidate, in the background; ZooKeeper may be away. Once only.

        Raises:
            DirectoryClosedError: the directory was closed.
            CoordinationError: it was started, or closed, already.
        """
        if self._task is not None or self._closing.is_set():
            raise CoordinationError(f"{self!r} was started already; make another object")
        self._directory.desk()
        self._task = asyncio.create_task(self._run(), name=f"shoal-leads-{self.name}")

    async def close(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking one's
    ) -> bool:
        """Tells the coroutine to stop, waits for it, and leaves the line. Idempotent.

        Args:
            timeout: Seconds to wait; then it is cancelled. None: for as long as it takes.

        Returns:
            Whether it has returned by itself.
        """
        self._closing.set()
        if self._term is not None:
            self._term.over.set()
        elif self._contention is not None:
            self._contention.leave()
        task = self._task
        if task is None or task is asyncio.current_task():
            return task is None
        done, _ = await asyncio.wait([task], timeout=timeout)
        if not done:
            logger.warning("%r: its coroutine has not returned within %s s", self, timeout)
            task.cancel()
            await asyncio.wait([task])
        return bool(done)

    async def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                worked = await self._one_term()
            except DirectoryClosedError as error:
                logger.info("nobody leads %r here any more: %s", self.name, error)
                return
            except ShoalError as error:
                if self._closing.is_set():
                    return
                logger.warning("leadership of %r can't be stood for: %s", self.name, error)
                worked = False
            except Exception:
                # Here nobody would hear of it, and nobody would stand any more.
                logger.exception("leadership of %r: a candidacy failed", self.name)
                worked = False
            failures = 0 if worked else failures + 1
            longest = min(AGAIN_LAST, AGAIN_FIRST * 2.0 ** min(failures, 10))
            with contextlib.suppress(TimeoutError):
                pause = longest * self._rng.uniform(0.5, 1.5)
                await asyncio.wait_for(self._closing.wait(), pause)

    async def _one_term(self) -> bool:
        """From candidacy to the coroutine's return; whether that was without an error."""
        desk = self._directory.desk()
        loop = asyncio.get_running_loop()
        contention = self._contention = Contention(
            desk,
            f"{desk.chroot}{self._path}",
            self._who.encode(),
            lost=lambda reason: tell(loop, partial(self._told, contention, reason)),
        )
        try:
            tenure = await asyncio.shield(asyncio.wrap_future(contention.outcome))
            return await self._serve(Term(self.name, tenure))
        finally:
            self._contention = self._term = None
            # Begun before anything is awaited: who is cancelled here has left all the same.
            gone = asyncio.wrap_future(contention.leave())
            # While ZooKeeper is away the node can't go, and waiting for it would help nobody.
            patience = GOODBYE if self._directory.connected else 0.0
            _, left = await asyncio.wait([gone], timeout=patience)
            if left:
                logger.warning(
                    "leadership of %r: its node goes when ZooKeeper is back, or with the session "
                    "(ZooKeeper is %s)",
                    self.name,
                    self._directory.describe(),
                )

    async def _serve(self, term: Term) -> bool:
        self._term = term
        if self._closing.is_set() or not term.leads:
            return True
        began = time.monotonic()
        logger.info("leads %r, fence %d", self.name, term.fence)
        try:
            await self._lead(term)
        except LockLostError as error:
            logger.info("leadership of %r ended: %s", self.name, error)
        except Exception:
            logger.exception("what leads %r failed; it stands again", self.name)
            return False
        finally:
            logger.info("led %r for %.1f s", self.name, time.monotonic() - began)
        return True

    def _told(self, contention: Contention, reason: str) -> None:
        if contention is not self._contention:
            return  # It was given up meanwhile.
        logger.warning("leadership of %r is lost: %s", self.name, reason)
        if self._term is not None:
            self._term.over.set()
