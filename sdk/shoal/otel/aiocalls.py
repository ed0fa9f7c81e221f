"""The same for asyncio channels."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from shoal import bases
from shoal.aio.methods import settled
from shoal.otel.watching import CANCELLED, OK, Attempt, AttemptWatch, Call, MethodWatch, sizes


class Unary(bases.AioUnaryUnary, bases.AioStreamUnary):
    """A method with one response.

    A call that goes well is over with its attempt. One whose attempt fails is looked after until it
    is over; that costs a task, which others need not pay for.
    """

    def __init__(self, method: Any, watch: MethodWatch) -> None:
        self._method = method
        self._watch = watch

    def __call__(self, *request: Any, metadata: Any = None, **options: Any) -> Any:
        """Calls; to be awaited."""
        call = self._watch.begin()
        if len(request) > 2:
            # A stream of requests takes timeout and metadata by position as well.
            first, timeout, metadata, *rest = request
            request = (first, timeout, call.on(metadata), *rest)
        else:
            options["metadata"] = call.on(metadata)
        try:
            made = self._method(*request, **options)
        except BaseException as error:
            call.fail(error)
            raise
        if made.sent_at_once:
            call.watch_for(weakref.ref(made))
        else:
            made.add_done_callback(partial(_over, call))
        return made


class Streaming(bases.AioUnaryStream, bases.AioStreamStream):
    """A method with a stream of responses."""

    def __init__(self, method: Any, watch: MethodWatch) -> None:
        self._method = method
        self._watch = watch

    def __call__(self, *request: Any, metadata: Any = None, **options: Any) -> Any:
        """Calls; the stream."""
        call = self._watch.begin()
        if len(request) > 2:
            first, timeout, metadata, *rest = request
            request = (first, timeout, call.on(metadata), *rest)
        else:
            options["metadata"] = call.on(metadata)
        try:
            stream = self._method(*request, **options)
        except BaseException as error:
            call.fail(error)
            raise
        stream.when_over(partial(_stream_over, call))
        return stream


def _stream_over(call: Call, error: BaseException | None) -> None:
    if error is not None:
        call.fail(error)
    else:
        call.end(CANCELLED if call.last is None else call.last)


def _over(call: Call, made: Any) -> None:
    code, details = made.ended_with()
    call.end(code, details)


class AttemptUnary:
    """A method with one response at one replica."""

    def __init__(self, inner: Any, watch: AttemptWatch) -> None:
        self._inner = inner
        self._begin = watch.begin

    def __call__(
        self, request: Any, timeout: Any = None, metadata: Any = None, *rest: Any, **options: Any
    ) -> Any:
        """As grpc's."""
        attempt, sent = self._begin(metadata)
        token = sizes.set(attempt.sizes)
        try:
            call = self._inner(request, timeout=timeout, metadata=sent, **_named(rest), **options)
        except BaseException as error:
            attempt.fail(error)
            raise
        finally:
            sizes.reset(token)
        call.add_done_callback(partial(_attempt_over, attempt))
        return call


class AttemptStream(AttemptUnary):
    """A method with a stream of responses at one replica."""


def _named(rest: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("credentials", "wait_for_ready", "compression"), rest, strict=False))


def _attempt_over(attempt: Attempt, ended: Any) -> None:
    code = settled(ended.code())
    details = "" if code is OK else str(settled(ended.details()) or "")
    attempt.end(code, details)
    call = attempt.call
    if call is None or call.waiter is None:
        return
    made = call.waiter()
    if code is OK or made is None:
        call.end(code, details)
    else:
        call.waiter = None
        made.add_done_callback(partial(_over, call))
