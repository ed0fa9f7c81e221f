"""A job as it is now, looked up once for all who follow it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc

from shoal_gateway.api.feed import Feed
from shoal_gateway.errors import UnavailableError
from shoal_protos.gateway.model.v1 import job_pb2

logger = logging.getLogger(__name__)

# Seconds before a look-up that failed is tried again.
RETRY = 0.5

Look = Callable[[str], Awaitable[job_pb2.Job]]


class Tracked:
    """One job, kept up to date while somebody follows it."""

    def __init__(self, job: job_pb2.Job) -> None:
        self.job = job
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None

    async def change(self, seen: job_pb2.Job) -> None:
        """Returns when `job` is another than the one that was seen."""
        while self.job is seen:
            if self._failure is not None:
                raise UnavailableError(
                    f"job {seen.id} can't be followed: {self._failure}; try again"
                ) from self._failure
            await self._changed.wait()

    def replace(self, job: job_pb2.Job) -> None:
        """Puts a newer state in place and wakes those who wait for it."""
        self.job = job
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Nobody looks any more: those who wait must not wait for ever."""
        self._failure = error
        self._wake()

    def _wake(self) -> None:
        self._changed, changed = asyncio.Event(), self._changed
        changed.set()


class Tracker:
    """Shares one look-up per change of a job among all its followers.

    Args:
        feed: Says when a job has changed.
        look: Asks the registry for a job.
    """

    def __init__(self, feed: Feed, look: Look) -> None:
        self._feed = feed
        self._look = look
        self._followed: dict[str, tuple[Tracked, asyncio.Task[None]]] = {}
        self._followers: dict[str, int] = {}

    @asynccontextmanager
    async def follow(self, job_id: str) -> AsyncIterator[Tracked]:
        """The job, kept up to date within the block.

        Raises:
            grpc.RpcError: the registry does not know it, or can't be asked.
            UnavailableError: the registry has not answered since this process started.
        """
        # In this order: what happens after the position reaches us through the feed.
        position = await self._feed.position()
        found = await self._look(job_id)
        followed = self._followed.get(job_id)
        if followed is None:
            tracked = Tracked(found)
            task = asyncio.create_task(
                self._keep(job_id, position, tracked), name=f"follow {job_id}"
            )
            followed = self._followed[job_id] = (tracked, task)
        tracked, task = followed
        self._followers[job_id] = self._followers.get(job_id, 0) + 1
        try:
            yield tracked
        finally:
            self._followers[job_id] -= 1
            if not self._followers[job_id]:
                del self._followers[job_id], self._followed[job_id]
                task.cancel()

    async def _keep(self, job_id: str, position: int, tracked: Tracked) -> None:
        try:
            async for event in self._feed.follow(position):
                if event.job_id == job_id:
                    tracked.replace(await self._look_again(job_id))
        except UnavailableError as error:
            tracked.fail(error)
        except BaseException as error:
            tracked.fail(error)
            raise

    async def _look_again(self, job_id: str) -> job_pb2.Job:
        while True:
            try:
                return await self._look(job_id)
            except grpc.RpcError as error:
                logger.warning("job %s can't be looked up, trying again: %s", job_id, error)
                await asyncio.sleep(RETRY)
