"""The multi-callables of the asyncio channel.

The fast path is `UnaryUnaryMethod.__call__` and `UnaryCall.__await__`: pick, begin, await grpc's
own call, end. No task is made unless the first attempt fails or has nobody to go to. The kinds of
calls stand in one file, for each is a variation of that path.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import grpc
import grpc.aio

from shoal import bases
from shoal.aio import hedging
from shoal.aio.failures import AioCallError
from shoal.aio.methods import Method, Send, put, settled, write
from shoal.aio.replay import END, AioReplayedRequests, Feed
from shoal.attempts import Again, CallState
from shoal.lineage import passed_on
from shoal.pool import ReplicaNode
from shoal_balancer import Outcome, Replica

OK = Outcome.OK
NEUTRAL = Outcome.NEUTRAL
OK_STATUS = grpc.StatusCode.OK


class UnaryCall(grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]  # not generic at run time
    """What a call with one response returns: to be awaited, as grpc's own.

    Either grpc's call of the first attempt is under way (``_inner`` on ``_node``), or a task makes
    the attempts that follow and comes back with the response or the error.
    """

    # On the class, so that a call which goes well sets only what it needs.
    _node: ReplicaNode | None = None
    _began = 0.0
    _bound: float | None = None
    _inner: Any = None
    _open = False
    _awaited = False
    _task: asyncio.Task[tuple[Any, AioCallError | None]] | None = None
    _error: AioCallError | None = None
    _watchers: frozenset[asyncio.Task[None]] = frozenset()

    def __init__(
        self, method: Method, state: Callable[[], CallState], metadata: Any, send: Send
    ) -> None:
        self._method = method
        self._make_state = state
        self._metadata = metadata
        self._send = send

    def begin(self, node: ReplicaNode, began: float, inner: Any, bound: float | None) -> None:
        """The first attempt is under way."""
        self._node = node
        self._began = began
        self._bound = bound
        self._inner = inner
        self._open = True
        # Weakly: grpc keeps its callbacks, and a call that its caller drops must be let go.
        inner.add_done_callback(partial(_ended, weakref.ref(self)))

    def ended(self, inner: Any) -> None:
        """The call of grpc is over, and nobody awaits ours yet."""
        if not self._open:
            return
        if not _failed_now(inner):
            self._close(OK)
        elif inner.cancelled():
            self._close(NEUTRAL)
        else:
            # What follows a failure begins now, as a call that nobody awaits yet goes on too.
            self._watch(self._settled())

    def begin_slowly(self) -> None:
        """The first attempt has nobody to go to yet, or needs a timeout of its own."""
        self._task = asyncio.create_task(self._attempts(self._make_state(), None))

    @property
    def replica(self) -> Replica | None:
        """Who serves it."""
        return self._node.replica if self._node is not None else None

    @property
    def sent_at_once(self) -> bool:
        """Whether its first attempt is under way since it was made, and none followed yet."""
        return self._task is None

    def ended_with(self) -> tuple[grpc.StatusCode, str]:
        """Status and details of a call that has ended."""
        if self._error is not None:
            return self._error.code(), self._error.details() or ""
        if self.cancelled():
            return grpc.StatusCode.CANCELLED, ""
        return OK_STATUS, ""

    def __await__(self) -> Generator[Any, None, Any]:
        if self._task is None:
            self._awaited = True
            try:
                response = yield from self._inner.__await__()
            except grpc.aio.AioRpcError as error:
                self._failed(error)
            except BaseException:
                self._close(NEUTRAL)
                raise
            else:
                self._close(OK)
                return response
        return (yield from self._rest().__await__())

    def __del__(self) -> None:
        # Never awaited: grpc cancels the call, and the balancer must not wait for its end.
        if self._open:
            self._close(NEUTRAL)

    def cancel(self) -> bool:
        """Cancels the call; False when it has ended."""
        if self._task is not None:
            return self._task.cancel()
        return bool(self._inner.cancel())

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        if self._task is not None:
            return self._task.cancelled()
        return bool(self._inner.cancelled())

    def done(self) -> bool:
        """Whether it has ended."""
        if self._task is not None:
            return self._task.done()
        # A failure is not the end while it may be tried again.
        return bool(self._inner.done()) and (not self._open or not _failed_now(self._inner))

    def time_remaining(self) -> float | None:
        """Seconds to the deadline; None without one."""
        return self._inner.time_remaining() if self._inner is not None else None

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Calls ``callback`` with this call when it ends."""

        async def watch() -> None:
            await self._settled()
            callback(self)

        self._watch(watch())

    async def initial_metadata(self) -> Any:
        """The initial metadata."""
        await self._settled()
        if self._error is not None:
            return self._error.initial_metadata()
        return await self._inner.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """The trailing metadata; waits for the end."""
        await self._settled()
        if self._error is not None:
            return self._error.trailing_metadata()
        return await self._inner.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """The status; waits for the end."""
        await self._settled()
        if self._error is not None:
            return self._error.code()
        if self._task is not None and self._task.cancelled():
            return grpc.StatusCode.CANCELLED
        code: grpc.StatusCode = await self._inner.code()
        return code

    async def details(self) -> str:
        """The status's details; waits for the end."""
        await self._settled()
        if self._error is not None:
            return self._error.details() or ""
        details: str = await self._inner.details()
        return details

    async def debug_error_string(self) -> str:
        """What grpc's core says of it."""
        await self._settled()
        if self._error is not None:
            return self._error.debug_error_string() or ""
        text: str = await self._inner.debug_error_string()
        return text

    async def wait_for_connection(self) -> None:
        """Waits until the first attempt has a connection."""
        if self._inner is not None:
            await self._inner.wait_for_connection()

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        # The loop holds tasks weakly.
        self._watchers |= {task}
        task.add_done_callback(self._unwatch)

    def _unwatch(self, task: asyncio.Task[None]) -> None:
        self._watchers -= {task}

    async def _settled(self) -> None:
        """Waits for the end; who is cancelled while waiting here does not cancel the call."""
        while self._task is None and self._error is None:
            await self._inner.code()
            try:
                await self._inner
            except grpc.aio.AioRpcError as error:
                self._failed(error)
            except asyncio.CancelledError:
                self._close(NEUTRAL)
                return
            else:
                self._close(OK)
                return
        if self._task is not None:
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                _, self._error = self._task.result()

    def _close(self, outcome: Outcome) -> None:
        if self._open:
            self._open = False
            pool, node = self._method.pool, self._node
            now = pool.clock()
            node.end(now - self._began, outcome, now)  # type: ignore[union-attr]
            if pool.reports and outcome is OK:
                pool.heard(node, settled(self._inner.trailing_metadata()))  # type: ignore[arg-type]

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        """The first attempt failed: whoever awaits first sees to what follows, once."""
        if self._task is not None or self._error is not None:
            return
        state = self._make_state()
        now = self._method.pool.clock()
        node = self._node
        self._open = False
        why = state.failed(
            node,  # type: ignore[arg-type]  # there is one when an attempt has failed
            error,
            began=self._began,
            ended=now,
            bound=self._bound,
        )
        if why is not None:
            self._error = self._method.error(state, error, why)
        else:
            self._task = asyncio.create_task(self._attempts(state, Again()))

    async def _rest(self) -> Any:
        if self._error is None and self._task is not None:
            response, self._error = await self._task
            if self._error is None:
                return response
        if self._error is None:
            raise RuntimeError("a call ended without a response or an error")
        raise self._error

    async def _attempts(
        self, state: CallState, first: Again | None
    ) -> tuple[Any, AioCallError | None]:
        # Errors come back as values: a task that nobody awaits must not complain about them.
        try:
            return await self._method.drive(state, lambda: self._attempt(state), first), None
        except AioCallError as error:
            return None, error

    async def _attempt(self, state: CallState) -> Any:
        method = self._method
        if method.hedging is not None:
            response, copy = await hedging.attempt(
                method.hedging, method, state, self._metadata, self._send
            )
            self._inner, self._node = copy.inner, copy.node
            return response
        clock = method.pool.clock
        node = await method.channel.acquire(state)
        began = clock()
        bound = state.timeout(began)
        try:
            inner = self._send(method.inner(node), bound, state.metadata(self._metadata))
            self._inner = inner
            self._node = node
            response = await inner
        except grpc.aio.AioRpcError as error:
            why = state.failed(node, error, began=began, ended=clock(), bound=bound)
            if why is None:
                raise Again from error
            raise method.error(state, error, why) from error
        except BaseException:
            node.end(0.0, NEUTRAL, clock())
            raise
        now = clock()
        node.end(now - began, OK, now)
        if method.pool.reports:
            method.pool.heard(node, settled(inner.trailing_metadata()))
        return response


class StreamUnaryCall(UnaryCall, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """The same for a stream of requests, which may be written one by one."""

    feed: Feed | None = None

    async def write(self, request: Any) -> None:
        """Sends one request."""
        await write(self, self.feed, request)

    async def done_writing(self) -> None:
        """Says that no request follows. Idempotent."""
        feed, self.feed = self.feed, None
        if feed is not None:
            await put(self, feed, END)


class UnaryUnaryMethod(Method, bases.AioUnaryUnary):
    """One request, one response."""

    kind = "unary_unary"

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
        """Calls; a `UnaryCall`, to be awaited."""
        pool = self.pool
        began = pool.clock()

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner(
                request,
                timeout=bound,
                metadata=sent,
                credentials=credentials,
                compression=compression,
            )

        def state() -> CallState:
            made = self.state(
                timeout, wait_for_ready=wait_for_ready, request=request, metadata=metadata
            )
            if timeout is not None:
                made.deadline = began + timeout
            return made

        call = UnaryCall(self, state, metadata, send)
        self.deposit()
        if self.hedging is not None:
            self.hedging.deposit()
        node = pool.pick(began) if self.plain else None
        if node is not None:
            node.begin()
            if not node.retired:
                endpoint = node.endpoint
                try:
                    inner = endpoint.callables.get(self.key) or endpoint.bind(self)
                    sent = send(inner, timeout, passed_on(metadata))
                except BaseException:
                    node.end(0.0, NEUTRAL, began)
                    raise
                call.begin(node, began, sent, timeout)
                return call
            node.abandon()
        call.begin_slowly()
        return call


class StreamUnaryMethod(Method, bases.AioStreamUnary):
    """A stream of requests, one response."""

    kind = "stream_unary"
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
        """Calls; a `StreamUnaryCall`, to be awaited."""
        feed = Feed() if request_iterator is None else None
        requests = AioReplayedRequests(feed or request_iterator, self.serializer)

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner(requests.reader(), bound, sent, credentials, None, compression)

        def state() -> CallState:
            made = self.state(timeout, wait_for_ready=wait_for_ready, metadata=metadata)
            made.requests = requests
            return made

        call = StreamUnaryCall(self, state, metadata, send)
        call.feed = feed
        self.deposit()
        call.begin_slowly()
        return call


def _ended(this: weakref.ref[UnaryCall], inner: Any) -> None:
    call = this()
    # Who awaits it hears of its end in the same turn of the loop, and sees to what follows.
    if call is not None and not call._awaited:  # noqa: SLF001 - a friend of the class
        call.ended(inner)


def _failed_now(inner: Any) -> bool:
    return settled(inner.code()) is not grpc.StatusCode.OK
