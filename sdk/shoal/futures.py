"""A unary call in the background, whose retries never block a thread of grpc's."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from shoal.attempts import CallState, cancellation
from shoal.bases import Future
from shoal.failures import CallError
from shoal.pool import ReplicaNode
from shoal_balancer import Outcome, Replica

if TYPE_CHECKING:
    from shoal.methods import Method, Send

# Between looks for a first replica, seconds; a future may not wait on the caller's thread.
LOOK_AGAIN = 0.02


class CallFuture(Future, grpc.Call):
    """What ``future()`` returns.

    Ends of attempts are told on grpc's callback threads. What follows there is book-keeping only; a
    next attempt is sent from the housekeeping thread after its wait.
    """

    def __init__(self, method: Method, state: CallState, metadata: Any, send: Send[Any]) -> None:
        self._method = method
        self._state = state
        self._metadata = metadata
        self._send = send
        self._change = threading.Condition()
        self._inner: Any = None
        self._node: ReplicaNode | None = None
        self._error: BaseException | None = None
        self._response: Any = None
        self._done = False
        self._cancelled = False
        self._callbacks: list[Callable[[Any], Any]] = []
        self._start()

    @property
    def replica(self) -> Replica | None:
        """Who serves it."""
        return self._node.replica if self._node is not None else None

    def cancel(self) -> bool:
        """Cancels the call; False when it has ended."""
        with self._change:
            if self._done:
                return False
            self._cancelled = True
            inner = self._inner
        if inner is None or not inner.cancel():
            # Between two attempts nobody else would tell.
            self._finish(error=cancellation(self._state))
        return True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._done

    def done(self) -> bool:
        """Whether it has ended."""
        return self._done

    def result(self, timeout: float | None = None) -> Any:
        """The response, waited for.

        Raises:
            grpc.FutureTimeoutError: it did not come in ``timeout`` seconds.
            grpc.FutureCancelledError: the call was cancelled.
            CallError: the call failed.
        """
        self._wait(timeout)
        if self._cancelled:
            raise grpc.FutureCancelledError
        if self._error is not None:
            raise self._error
        return self._response

    def exception(self, timeout: float | None = None) -> Any:
        """The error, waited for; None when the call succeeded."""
        self._wait(timeout)
        if self._cancelled:
            raise grpc.FutureCancelledError
        return self._error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Where the error was raised."""
        error = self.exception(timeout)
        return error.__traceback__ if error is not None else None

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Calls ``fn`` with this future when it ends, at once if it has."""
        with self._change:
            if not self._done:
                self._callbacks.append(fn)
                return
        fn(self)

    def is_active(self) -> bool:
        """Whether it has not ended."""
        return not self._done

    def time_remaining(self) -> Any:
        """Seconds to the deadline; None without one."""
        if math.isinf(self._state.deadline):
            return None
        return max(self._state.deadline - self._method.pool.clock(), 0.0)

    def add_callback(self, callback: Callable[[], Any]) -> bool:
        """Has ``callback`` called when the call ends; False when it has ended."""
        with self._change:
            if self._done:
                return False
            self._callbacks.append(lambda _: callback())
            return True

    def initial_metadata(self) -> Any:
        """The initial metadata; waits for the end."""
        return self._last().initial_metadata()

    def trailing_metadata(self) -> Any:
        """The trailing metadata; waits for the end."""
        return self._last().trailing_metadata()

    def code(self) -> Any:
        """The status; waits for the end."""
        return self._last().code()

    def details(self) -> Any:
        """The status's details; waits for the end."""
        return self._last().details()

    def _last(self) -> Any:
        self._wait(None)
        return self._error if isinstance(self._error, CallError) else self._inner

    def _wait(self, timeout: float | None) -> None:
        with self._change:
            if not self._change.wait_for(lambda: self._done, timeout):
                raise grpc.FutureTimeoutError

    def _start_later(self) -> None:
        """An attempt on the housekeeping thread, where nobody else would hear of its failure."""
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 - raised to whoever asks for the result
            closed = self._method.pool.closed
            code = grpc.StatusCode.CANCELLED if closed else grpc.StatusCode.INTERNAL
            details = "Channel closed!" if closed else f"the call could not be sent: {error}"
            failure = CallError(code, details, self._state.attempts, "it could not be sent")
            failure.__cause__ = error
            self._finish(error=failure)

    def _start(self) -> None:
        if self._cancelled or self._done:
            return
        try:
            node = self._method.channel.acquire_now(self._state)
        except CallError as error:
            self._finish(error=error)
            return
        if node is None:
            self._method.pool.transport.later(LOOK_AGAIN, self._start_later)
            return
        began = self._method.pool.clock()
        bound = self._state.timeout(began)
        try:
            inner = self._send(
                self._method.inner(node), bound, self._state.metadata(self._metadata)
            )
        except BaseException:
            node.end(0.0, Outcome.NEUTRAL, began)
            raise
        with self._change:
            self._inner = inner
            self._node = node
        if self.cancelled():
            # While it was being sent.
            inner.cancel()
        inner.add_done_callback(lambda done: self._ended(done, node, began, bound))

    def _ended(self, inner: Any, node: ReplicaNode, began: float, bound: float | None) -> None:
        now = self._method.pool.clock()
        if inner.code() is grpc.StatusCode.OK:
            node.end(now - began, Outcome.OK, now)
            if self._method.pool.reports:
                self._method.pool.heard(node, inner.trailing_metadata())
            self._finish(response=inner.result())
            return
        why = self._state.failed(node, inner, began=began, ended=now, bound=bound)
        if why is not None or self._cancelled:
            final = why or "the caller cancelled"
            self._finish(error=self._method.error(self._state, inner, final))
            return
        with self._change:
            self._inner = None
        self._method.pool.transport.later(self._state.delay(), self._start_later)

    def _finish(self, response: Any = None, error: BaseException | None = None) -> None:
        with self._change:
            if self._done:
                return
            self._done = True
            self._response = response
            self._error = error
            callbacks, self._callbacks = self._callbacks, []
            self._change.notify_all()
        for callback in callbacks:
            callback(self)
