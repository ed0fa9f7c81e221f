"""The asyncio half of a pool: grpc.aio channels, opened and closed on their own event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from shoal import forks
from shoal.transport import (
    GOODBYE,
    HELLO,
    MISSED,
    PATIENCE,
    RELEASED,
    Credentials,
    Options,
    merged,
)
from shoal_protos.v1 import replica_pb2

logger = logging.getLogger(__name__)


class AioTransport:
    """Opens asyncio channels.

    The directory tells of changes on its own thread; whatever follows from them for a connection
    happens on the loop that the channel was made on.

    Args:
        loop: That loop.
        credentials: Makes those of a connection; None for plaintext.
        options: grpc's channel options.
        compression: grpc's default compression for the channel.
        interceptors: Run for each attempt, on its replica's channel.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        credentials: Credentials | None,
        options: Options,
        compression: grpc.Compression | None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] | None,
    ) -> None:
        self._loop = loop
        self._credentials = credentials
        self._options = options
        self._compression = compression
        self._interceptors = interceptors
        # The loop holds tasks weakly; a goodbye must live until it is said.
        self._tasks: set[asyncio.Task[None]] = set()
        # The last word said over each open channel; words over one keep their order.
        self._words: dict[grpc.aio.Channel, asyncio.Task[None]] = {}

    def open(self, target: str, announced: Mapping[str, str]) -> grpc.aio.Channel:
        """A channel to one replica, which announced this in its metadata."""
        forks.starts(aio=True)
        options = merged(self._options, announced)
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options, self._compression, self._interceptors)
        return grpc.aio.secure_channel(
            target, self._credentials(), options, self._compression, self._interceptors
        )

    def close(self, channel: grpc.aio.Channel) -> None:
        """Closes it, soon: the answer to a goodbye is waited for, up to half a second."""

        async def close() -> None:
            word = self._words.pop(channel, None)
            if word is not None:
                await asyncio.wait({word}, timeout=GOODBYE)
            await channel.close()

        self._spawn(close)

    def state(
        self, channel: grpc.aio.Channel, *, connect: bool = False
    ) -> grpc.ChannelConnectivity | None:
        """The state of its connection."""
        return channel.get_state(try_to_connect=connect)

    def hello(
        self, channel: grpc.aio.Channel, caller_id: str, missed: Callable[[], object]
    ) -> None:
        """Says hello in the background."""

        async def say() -> None:
            call = channel.unary_unary(
                HELLO,
                replica_pb2.HelloRequest.SerializeToString,
                replica_pb2.HelloResponse.FromString,
            )
            request = replica_pb2.HelloRequest(caller_id=caller_id)
            if await _heard(call(request, timeout=PATIENCE)) in MISSED:
                missed()

        self._say(channel, say)

    def released(self, channel: grpc.aio.Channel, caller_id: str) -> None:
        """Says released in the background."""

        async def say() -> None:
            call = channel.unary_unary(
                RELEASED,
                replica_pb2.ReleasedRequest.SerializeToString,
                replica_pb2.ReleasedResponse.FromString,
            )
            await _heard(call(replica_pb2.ReleasedRequest(caller_id=caller_id), timeout=PATIENCE))

        self._say(channel, say)

    def later(self, delay: float, task: Callable[[], object]) -> None:
        """Runs it on the loop."""
        self._on_loop(lambda: self._loop.call_later(delay, task))

    async def finish(self) -> None:
        """Waits for goodbyes and closings that are under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _say(
        self, channel: grpc.aio.Channel, word: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        def start() -> None:
            before = self._words.get(channel)

            async def in_turn() -> None:
                if before is not None:
                    await asyncio.wait({before})
                await word()

            self._words[channel] = self._start(in_turn)

        self._on_loop(start)

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._on_loop(lambda: self._start(work))

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        task = self._loop.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _on_loop(self, start: Callable[[], object]) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            start()
            return
        try:
            self._loop.call_soon_threadsafe(start)
        except RuntimeError:
            # The loop was closed under us: its connections went with it.
            logger.debug("the event loop of a channel was closed before the channel")


async def _heard(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        # A server that is not Shoal's does not know the word, and a dead one hears nothing.
        logger.debug("not heard: %s %s", error.code(), error.details())
        return error.code()
    return grpc.StatusCode.OK
