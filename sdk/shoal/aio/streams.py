"""Streams of responses for asyncio, tried again elsewhere while none has been handed out."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from shoal import bases
from shoal.aio.failures import AioCallError
from shoal.aio.methods import Method, Send, put, settled, write
from shoal.aio.replay import END, AioReplayedRequests, Feed
from shoal.attempts import Again, CallState
from shoal.pool import ReplicaNode
from shoal.streams import Callbacks, StreamEnd, may_repeat
from shoal_balancer import Replica

EOF = grpc.aio.EOF


class ResponseStream:
    """What both kinds of calls with a stream of responses are made of."""

    def __init__(self, method: Method, state: CallState, metadata: Any, send: Send) -> None:
        self._method = method
        self._state = state
        self._metadata = metadata
        self._send = send
        self._inner: Any = None
        self._end: StreamEnd | None = None
        self._bound: float | None = None
        self._answered = False
        self._cancelled = False
        self._error: AioCallError | None = None
        self._iterator: AsyncIterator[Any] | None = None
        self._callbacks = Callbacks()
        self._connecting = asyncio.Lock()
        self.feed: Feed | None = None
        # Sent now if there is somebody to send it to, as grpc does; else at the first read.
        try:
            node = method.channel.acquire_now(state)
        except AioCallError as error:
            self._end_with(error)
        else:
            if node is not None:
                self._start(node)

    def __del__(self) -> None:
        # Nobody will read the rest; grpc cancels a call that is dropped, and so do we.
        inner = getattr(self, "_inner", None)
        if inner is not None and not inner.done():
            inner.cancel()

    @property
    def replica(self) -> Replica | None:
        """Who serves it."""
        return self._end.node.replica if self._end is not None else None

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._iterator is None:
            self._iterator = self._messages()
        return self._iterator

    async def read(self) -> Any:
        """The next response, or ``grpc.aio.EOF``.

        Raises:
            AioCallError: the call failed.
        """
        try:
            if self._error is not None:
                raise self._error
            if self._inner is None:
                await self._connect_first()
            return await self._next()
        except Again as failure:
            return await self._elsewhere(failure)
        except AioCallError as error:
            if self._cancelled:
                # As grpc.aio says it to who reads.
                raise asyncio.CancelledError from error
            raise

    async def write(self, request: Any) -> None:
        """Sends one request of a call without an iterator."""
        await write(self, self.feed, request)

    async def done_writing(self) -> None:
        """Says that no request follows. Idempotent."""
        feed, self.feed = self.feed, None
        if feed is not None:
            await put(self, feed, END)

    def cancel(self) -> bool:
        """Cancels the call; False when it has ended."""
        if self.done():
            return False
        self._cancelled = self._state.cancelled = True
        if self._inner is not None:
            return bool(self._inner.cancel())
        self._end_with(AioCallError.cancelled(self._state.attempts))
        return True

    def cancelled(self) -> bool:
        """Whether it was cancelled, by `cancel` or with the task that was reading."""
        return self._cancelled or (self._inner is not None and bool(self._inner.cancelled()))

    def done(self) -> bool:
        """Whether it has ended."""
        if self._error is not None:
            return True
        inner = self._inner
        if inner is None:
            return self._cancelled
        # A failure is not the end while it may be tried again.
        return bool(inner.done()) and not self.may_follow(
            settled(inner.code()), settled(inner.trailing_metadata())
        )

    def time_remaining(self) -> float | None:
        """Seconds to the deadline; None without one."""
        return self._inner.time_remaining() if self._inner is not None else None

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Calls ``callback`` with this call when it ends.

        An attempt that fails and may be followed by another is not the end; whether it is shows
        when the responses are read.
        """
        if not self._callbacks.add(lambda: callback(self)):
            callback(self)

    def when_over(self, callback: Callable[[BaseException | None], object]) -> None:
        """Has ``callback`` called at the end, with the error if it is ours.

        For observers, who must not keep a stream alive that its caller has dropped.
        """
        this = weakref.ref(self)

        def over() -> None:
            stream = this()
            callback(stream._error if stream is not None else None)  # noqa: SLF001 - its own

        if not self._callbacks.add(over):
            over()

    async def initial_metadata(self) -> Any:
        """The initial metadata."""
        inner = await self._call()
        if self._error is not None:
            return self._error.initial_metadata()
        return await inner.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """The trailing metadata; waits for the end."""
        inner = await self._call()
        if self._error is not None:
            return self._error.trailing_metadata()
        return await inner.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """The status; waits for the end."""
        inner = await self._call()
        if self._error is not None:
            return self._error.code()
        code: grpc.StatusCode = await inner.code()
        return code

    async def details(self) -> str:
        """The status's details; waits for the end."""
        inner = await self._call()
        details = self._error.details() if self._error is not None else await inner.details()
        return details or ""

    async def wait_for_connection(self) -> None:
        """Waits until the attempt has a connection."""
        inner = await self._call()
        if self._error is None:
            await inner.wait_for_connection()

    async def _call(self) -> Any:
        if self._error is None and self._inner is None:
            try:
                await self._connect_first()
            except AioCallError as error:
                self._end_with(error)
        return self._inner

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not EOF:
            yield message

    async def _connect_first(self) -> None:
        # One task may read while another writes or asks for the code.
        async with self._connecting:
            if self._inner is None:
                await self._connect()

    async def _connect(self) -> None:
        self._start(await self._method.channel.acquire(self._state))

    def _start(self, node: ReplicaNode) -> None:
        clock = self._method.pool.clock
        rest = self._state.deadline - clock()
        self._bound = None if rest == float("inf") else max(rest, 0.0)
        end = StreamEnd(node, clock)
        try:
            inner = self._send(
                self._method.inner(node), self._bound, self._state.metadata(self._metadata)
            )
        except BaseException:
            end.end(None, ())
            raise
        self._inner = inner
        self._end = end

        callbacks, pool = self._callbacks, self._method.pool
        # Weakly: a stream that its caller has dropped must not live on through this.
        this = weakref.ref(self)

        def ended(_: object) -> None:
            code, trailing = settled(inner.code()), settled(inner.trailing_metadata())
            end.end(code, trailing)
            if pool.reports and code is grpc.StatusCode.OK:
                pool.heard(node, trailing)
            stream = this()
            if stream is None or not stream.may_follow(code, trailing):
                callbacks.call()

        inner.add_done_callback(ended)

    def may_follow(self, code: grpc.StatusCode, trailing: Any) -> bool:
        """Whether an attempt that ended so may not be the last; the reader decides."""
        if self._answered or self._cancelled:
            return False
        return may_repeat(self._state, code, trailing)

    def _end_with(self, error: AioCallError) -> None:
        self._error = error
        self._callbacks.call()

    async def _next(self) -> Any:
        end = self._end
        try:
            message = await self._inner.read()
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error
        if message is not EOF and end is not None and not self._answered:
            self._answered = True
            end.message()
        return message

    def _failed(self, error: grpc.aio.AioRpcError) -> BaseException:
        end = self._end
        if end is None:
            return RuntimeError("a stream failed before it began")
        why = self._state.failed(
            end.node,
            error,
            began=end.began,
            ended=self._method.pool.clock(),
            bound=self._bound,
            begun=False,
            answered=self._answered or self._cancelled,
        )
        if why is None:
            return Again()
        final = self._method.error(self._state, error, why)
        self._end_with(final)
        return final

    async def _elsewhere(self, failure: Again) -> Any:
        async def once() -> Any:
            await self._connect()
            return await self._next()

        try:
            return await self._method.drive(self._state, once, failure)
        except AioCallError as error:
            self._end_with(error)
            raise


class UnaryStreamCall(ResponseStream, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """One request, a stream of responses."""


class StreamStreamCall(ResponseStream, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """A stream either way."""


class UnaryStreamMethod(Method, bases.AioUnaryStream):
    """One request, a stream of responses."""

    kind = "unary_stream"

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls; a `UnaryStreamCall`, to be iterated over."""

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner(
                request,
                timeout=bound,
                metadata=sent,
                credentials=credentials,
                compression=compression,
            )

        self.deposit()
        state = self.state(
            timeout, wait_for_ready=wait_for_ready, request=request, metadata=metadata
        )
        return UnaryStreamCall(self, state, metadata, send)


class StreamStreamMethod(Method, bases.AioStreamStream):
    """A stream either way."""

    kind = "stream_stream"
    streams_requests = True

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls; a `StreamStreamCall`, to be iterated over and written to."""
        feed = Feed() if request_iterator is None else None
        requests = AioReplayedRequests(feed or request_iterator, self.serializer)
        state = self.state(timeout, wait_for_ready=wait_for_ready, metadata=metadata)
        state.requests = requests

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner(requests.reader(), bound, sent, credentials, None, compression)

        self.deposit()
        call = StreamStreamCall(self, state, metadata, send)
        call.feed = feed
        return call
