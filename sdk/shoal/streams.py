"""A stream of responses, tried again elsewhere while none has been handed out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from shoal.attempts import Again, CallState
from shoal.failures import CallError
from shoal.pool import ReplicaNode
from shoal.refusal import refusal_in
from shoal.retry import Failure
from shoal_balancer import Outcome, Replica

if TYPE_CHECKING:
    from shoal.calls import Send, _Method


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


class ResponseStream(grpc.Call, Iterator[Any]):
    """What a call with a stream of responses returns: a ``grpc.Call`` to iterate over.

    Attributes that it lacks are those of the present attempt's own call.
    """

    def __init__(self, method: _Method, state: CallState, metadata: Any, send: Send[Any]) -> None:
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
        self._callbacks: list[Callable[[], Any]] = []
        # Sent now if there is somebody to send it to, as grpc does; else at the first use.
        try:
            node = method.channel.acquire_now(state)
        except CallError as error:
            self._error = error
        else:
            if node is not None:
                self._start(node)

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
                self._connect()
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
        self._cancelled = True
        return bool(self._inner.cancel()) if self._inner is not None else True

    def is_active(self) -> bool:
        """Whether it has not ended."""
        if self._error is not None:
            return False
        return bool(self._inner.is_active()) if self._inner is not None else not self._cancelled

    def time_remaining(self) -> Any:
        """Seconds to the deadline; None without one."""
        return self._call().time_remaining()

    def add_callback(self, callback: Callable[[], Any]) -> bool:
        """Has ``callback`` called when the call ends; False when it has ended."""
        return bool(self._call().add_callback(callback))

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
                self._connect()
            except CallError as error:
                self._error = error
                return error
        return self._inner

    def _connect(self) -> None:
        self._start(self._method.channel.acquire(self._state))

    def _start(self, node: ReplicaNode) -> None:
        clock = self._method.pool.clock
        self._bound = self._state.timeout(clock())
        if self._answered is False and self._state.retry is not None:
            # A stream may well outlast the time for one attempt; only its first message may not.
            self._bound = self._whole(clock())
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

        def ended() -> None:
            end.end(inner.code(), inner.trailing_metadata())

        if not inner.add_callback(ended):
            ended()

    def _whole(self, now: float) -> float | None:
        rest = self._state.deadline - now
        return None if rest == float("inf") else max(rest, 0.0)

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
        self._error = self._method.error(self._state, error, why)
        return self._error

    def _elsewhere(self, failure: Again) -> Any:
        def once() -> Any:
            self._connect()
            return self._next()

        try:
            return self._method.drive(self._state, once, failure)
        except CallError as error:
            self._error = error
            raise
