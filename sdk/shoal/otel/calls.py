"""What observed channels put in the place of their methods: blocking calls and their attempts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shoal import bases
from shoal.otel.watching import CANCELLED, OK, Attempt, AttemptWatch, Call, MethodWatch, sizes


class Watched:
    """A method, observed; called as grpc's are, by position or by name.

    Args:
        method: Ours, unobserved.
        watch: Who observes it.
    """

    def __init__(self, method: Any, watch: MethodWatch) -> None:
        self._method = method
        self._watch = watch

    def _made(
        self, make: Any, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Call, Any]:
        """A call that has begun, and what the method made of it."""
        call = self._watch.begin()
        if len(arguments) > 2:
            request, timeout, metadata, *rest = arguments
            arguments = (request, timeout, call.on(metadata), *rest)
        else:
            named["metadata"] = call.on(named.get("metadata"))
        try:
            return call, make(*arguments, **named)
        except BaseException as error:
            call.fail(error)
            raise


class Unary(Watched, bases.UnaryUnary, bases.StreamUnary):
    """A method with one response."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Calls and returns the response."""
        call, response = self._made(self._method, arguments, named)
        call.end(OK)
        return response

    def with_call(self, *arguments: Any, **named: Any) -> Any:
        """Calls and returns the response and the call."""
        call, both = self._made(self._method.with_call, arguments, named)
        call.end(OK)
        return both

    def future(self, *arguments: Any, **named: Any) -> Any:
        """Calls in the background."""
        call, made = self._made(self._method.future, arguments, named)
        made.add_done_callback(partial(_future_over, call))
        return made


class Streaming(Watched, bases.UnaryStream, bases.StreamStream):
    """A method with a stream of responses."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Calls; the stream."""
        call, stream = self._made(self._method, arguments, named)
        stream.when_over(partial(stream_over, call))
        return stream


def _future_over(call: Call, future: Any) -> None:
    if future.cancelled():
        call.end(CANCELLED)
        return
    error = future.exception()
    if error is None:
        call.end(OK)
    else:
        call.fail(error)


def stream_over(call: Call, error: BaseException | None) -> None:
    """A stream has ended, of itself or by an error."""
    if error is not None:
        call.fail(error)
    else:
        call.end(CANCELLED if call.last is None else call.last)


class WatchedAttempts:
    """A method at one replica.

    Args:
        inner: grpc's.
        watch: Who observes it.
    """

    def __init__(self, inner: Any, watch: AttemptWatch) -> None:
        self._inner = inner
        self._begin = watch.begin

    def _made(self, metadata: Any, send: Callable[[Any], Any]) -> tuple[Attempt, Any]:
        """An attempt that was sent, and what came of it; ``send`` is given its metadata."""
        attempt, sent = self._begin(metadata)
        token = sizes.set(attempt.sizes)
        try:
            return attempt, send(sent)
        except BaseException as error:
            attempt.fail(error)
            raise
        finally:
            sizes.reset(token)


class AttemptUnary(WatchedAttempts):
    """A method with one response; called as `shoal.methods.Send` does."""

    def __call__(self, request: Any, timeout: Any, metadata: Any, *rest: Any) -> Any:
        """As grpc's."""
        inner = self._inner
        attempt, response = self._made(metadata, lambda sent: inner(request, timeout, sent, *rest))
        attempt.end(OK)
        return response

    def with_call(self, request: Any, timeout: Any, metadata: Any, *rest: Any) -> Any:
        """As grpc's."""
        inner = self._inner.with_call
        attempt, both = self._made(metadata, lambda sent: inner(request, timeout, sent, *rest))
        attempt.end(OK)
        return both

    def future(self, request: Any, timeout: Any, metadata: Any, *rest: Any) -> Any:
        """As grpc's."""
        inner = self._inner.future
        attempt, made = self._made(metadata, lambda sent: inner(request, timeout, sent, *rest))
        made.add_done_callback(partial(_attempt_over, attempt))
        return made


class AttemptStream(WatchedAttempts):
    """A method with a stream of responses."""

    def __call__(self, request: Any, timeout: Any, metadata: Any, *rest: Any) -> Any:
        """As grpc's."""
        inner = self._inner
        attempt, stream = self._made(metadata, lambda sent: inner(request, timeout, sent, *rest))
        over = partial(_attempt_over, attempt, stream)
        if not stream.add_callback(over):
            over()
        return stream


def _attempt_over(attempt: Attempt, ended: Any) -> None:
    code = ended.code()
    attempt.end(code, "" if code is OK else str(ended.details() or ""))
