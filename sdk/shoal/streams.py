"""A stream of responses, tried again elsewhere while none has been handed out."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from shoal.attempts import Again, CallState, cancellation
from shoal.failures import CallError
from shoal.pool import ReplicaNode
from shoal.refusal import refusal_in
from shoal.retry import Failure
from shoal_balancer import Outcome, Replica

if TYPE_CHECKING:
    from shoal.methods import Method, Send


class StreamEnd:
    """Ends a stream's call at the balancer, once, whenever and however the stream ends.

    A stream's latency is the time to its first message: how long a watch lasts says nothing about
    its replica. Shared by the blocking and the asyncio stream.

    Args:
        node: Where it goes.
        clock: The pool's.
    """

    def __init__(self, node: ReplicaNode, clock: Callable[[], float]) -> None:
        self.node = node
        self.began = clock()
        self._clock = clock
        self._first: float | None = None
        self._ended = False

    def message(self) -> None:
        """A message has come."""
        if self._first is None:
            self._first = self._clock()

    def end(self, code: grpc.StatusCode | None, trailing: Any) -> None:
        """The stream has ended."""
        if self._ended:
            return
        self._ended = True
        now = self._clock()
        latency = (self._first if self._first is not None else now) - self.began
        if code is grpc.StatusCode.OK:
            outcome = Outcome.OK
        elif code is None:
            outcome = Outcome.NEUTRAL
        else:
            outcome = Failure(code, refused=refusal_in(trailing)).outcome
        self.node.end(latency, outcome, now)


def may_repeat(state: CallState, code: grpc.StatusCode, trailing: Any) -> bool:
    """Whether a stream's attempt that ended so, without a message, might be repeated."""
    retry = state.retry
    if retry is None:
        return False
    return code in retry.codes or refusal_in(trailing) is not None


class Callbacks:
    """What is to be called when a stream has ended for good; once. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], Any]] | None = []

    def add(self, callback: Callable[[], Any]) -> bool:
        """Whether it will be called: False when the end has come."""
        with self._lock:
            if self._waiting is None:
                return False
            self._waiting.append(callback)
            return True

    def call(self) -> None:
        """The end has come."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        for callback in waiting or ():
            callback()


class ResponseStream(grpc.Call, Iterator[Any]):
    """What a call with a stream of responses returns: a ``grpc.Call`` to iterate over.

    Attributes that it lacks are those of the present attempt's own call.
    """

    def __init__(self, method: Method, state: CallState, metadata: Any, send: Send[Any]) -> None:
        self._method = method
        self._state = state
        self._metadata = metadata
        self._send = send
        self._inner: Any = None
        self._end: StreamEnd | None = None
        self._bound: float | None = None
        self._answered = False
        self._cancelled = False
        self._error: BaseException | None = None
        self._callbacks = Callbacks()
        self._connecting = threading.Lock()
        # Sent now if there is somebody to send it to, as grpc does; else at the first use.
        try:
            node = method.channel.acquire_now(state)
        except CallError as error:
            self._end_with(error)
        else:
            if node is not None:
                self._start(node)

    def __del__(self) -> None:
        # Nobody will read the rest; grpc cancels a call that is dropped, and so do we.
        inner = getattr(self, "_inner", None)
        if inner is not None and inner.is_active():
            inner.cancel()

    @property
    def replica(self) -> Replica | None:
        """Who serves it."""
        return self._end.node.replica if self._end is not None else None

    def __iter__(self) -> ResponseStream:
        return self

    def __next__(self) -> Any:
        if self._error is not None:
            raise self._error
        try:
            if self._inner is None:
                self._connect_first()
            return self._next()
        except Again as failure:
            return self._elsewhere(failure)

    next = __next__

    def __getattr__(self, name: str) -> Any:
        # debug_error_string, result, exception …: whatever this grpcio's call has besides.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._call(), name)

    def cancel(self) -> bool:
        """Cancels the call."""
        self._cancelled = self._state.cancelled = True
        if self._inner is not None:
            return bool(self._inner.cancel())
        if self._error is None:
            self._end_with(cancellation(self._state))
        return True

    def is_active(self) -> bool:
        """Whether it has not ended."""
        if self._error is not None:
            return False
        return bool(self._inner.is_active()) if self._inner is not None else not self._cancelled

    def time_remaining(self) -> Any:
        """Seconds to the deadline; None without one."""
        return self._call().time_remaining()

    def add_callback(self, callback: Callable[[], Any]) -> bool:
        """Has ``callback`` called when the call ends; False when it has ended.

        An attempt that fails and may be followed by another is not the end; whether it is shows
        when the responses are read.
        """
        self._call()
        return self._callbacks.add(callback)

    def when_over(self, callback: Callable[[BaseException | None], object]) -> None:
        """Has ``callback`` called at the end, with the error if it is ours; connects nothing.

        For observers, who must not keep a stream alive that its caller has dropped.
        """
        this = weakref.ref(self)

        def over() -> None:
            stream = this()
            callback(stream._error if stream is not None else None)  # noqa: SLF001 - its own

        if not self._callbacks.add(over):
            over()

    def initial_metadata(self) -> Any:
        """The initial metadata; waits for it."""
        return self._call().initial_metadata()

    def trailing_metadata(self) -> Any:
        """The trailing metadata; waits for the end."""
        return self._call().trailing_metadata()

    def code(self) -> Any:
        """The status; waits for the end."""
        return self._call().code()

    def details(self) -> Any:
        """The status's details; waits for the end."""
        return self._call().details()

    def _call(self) -> Any:
        if isinstance(self._error, CallError):
            return self._error
        if self._inner is None:
            try:
                self._connect_first()
            except CallError as error:
                self._end_with(error)
                return error
        return self._inner

    def _connect_first(self) -> None:
        # One thread may read while another asks for the code.
        with self._connecting:
            if self._inner is None:
                self._connect()

    def _connect(self) -> None:
        self._start(self._method.channel.acquire(self._state))

    def _start(self, node: ReplicaNode) -> None:
        clock = self._method.pool.clock
        # Not the time for one attempt, which a stream may well outlast.
        rest = self._state.deadline - clock()
        self._bound = None if math.isinf(rest) else max(rest, 0.0)
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

        def ended() -> None:
            code, trailing = inner.code(), inner.trailing_metadata()
            end.end(code, trailing)
            if pool.reports and code is grpc.StatusCode.OK:
                pool.heard(node, trailing)
            stream = this()
            if stream is None or not stream.may_follow(code, trailing):
                callbacks.call()

        if not inner.add_callback(ended):
            ended()

    def may_follow(self, code: grpc.StatusCode, trailing: Any) -> bool:
        """Whether an attempt that ended so may not be the last; the reader decides."""
        if self._answered or self._cancelled:
            return False
        return may_repeat(self._state, code, trailing)

    def _end_with(self, error: CallError) -> None:
        self._error = error
        self._callbacks.call()

    def _next(self) -> Any:
        end = self._end
        try:
            message = next(self._inner)
        except grpc.RpcError as error:
            raise self._failed(error) from error
        if end is not None and not self._answered:
            end.message()
        self._answered = True
        return message

    def _failed(self, error: Any) -> BaseException:
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

    def _elsewhere(self, failure: Again) -> Any:
        def once() -> Any:
            self._connect()
            return self._next()

        try:
            return self._method.drive(self._state, once, failure)
        except CallError as error:
            self._end_with(error)
            raise
