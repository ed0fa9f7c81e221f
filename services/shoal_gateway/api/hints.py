"""Tells a scheduler that there is something to do."""

from __future__ import annotations

import asyncio
import logging

import grpc

from shoal_protos.gateway.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc

logger = logging.getLogger(__name__)

# Seconds that a hint may take; later the scheduler's own poll has found the job.
TIMEOUT = 1.0


class WakeHints:
    """Saves a submitted job the wait for the scheduler's next poll.

    At most one hint is on its way; submits meanwhile share the next one. A lost hint loses nothing.

    Args:
        scheduler: The schedulers; the SDK picks one.
    """

    def __init__(self, scheduler: scheduler_pb2_grpc.SchedulerAsyncStub) -> None:
        self._scheduler = scheduler
        self._wanted = asyncio.Event()

    def give(self) -> None:
        """A job was queued."""
        self._wanted.set()

    async def run(self) -> None:
        """Sends hints, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._scheduler.Wake(scheduler_pb2.WakeRequest(), timeout=TIMEOUT)
            except grpc.RpcError as error:
                logger.debug("no scheduler took the hint, its poll will find the job: %s", error)
