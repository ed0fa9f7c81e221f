"""The same for asyncio channels."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from shoal import bases
from shoal.aio.methods import settled
from shoal.otel.calls import Watched, WatchedAttempts, stream_over
from shoal.otel.watching import OK, Attempt, Call


class Unary(Watched, bases.AioUnaryUnary, bases.AioStreamUnary):
    """A method with one response.

    A call that goes well is over with its attempt. One whose attempt fails is looked after until it
    is over; that costs a task, which others need not pay for.
    """

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Calls; to be awaited."""
        call, made = self._made(self._method, arguments, named)
        if made.sent_at_once:
            call.watch_for(weakref.ref(made))
        else:
            made.add_done_callback(partial(_over, call))
        return made


class Streaming(Watched, bases.AioUnaryStream, bases.AioStreamStream):
    """A method with a stream of responses."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Calls; the stream."""
        call, stream = self._made(self._method, arguments, named)
        stream.when_over(partial(stream_over, call))
        return stream


def _over(call: Call, made: Any) -> None:
    code, details = made.ended_with()
    call.end(code, details)


class Attempts(WatchedAttempts):
    """A method at one replica."""

    def __call__(
        self, request: Any, timeout: Any = None, metadata: Any = None, *rest: Any, **options: Any
    ) -> Any:
        """As grpc's."""
        options |= zip(("credentials", "wait_for_ready", "compression"), rest, strict=False)
        attempt, call = self._made(
            metadata, lambda sent: self._inner(request, timeout=timeout, metadata=sent, **options)
        )
        call.add_done_callback(partial(_attempt_over, attempt))
        return call


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
