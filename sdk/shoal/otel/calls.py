"""What observed channels put in the place of their methods: blocking calls and their attempts."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc

from shoal import bases
from shoal.otel.watching import CANCELLED, OK, Attempt, AttemptWatch, Call, MethodWatch, sizes


class UnaryUnary(bases.UnaryUnary):
    """A method with one request and one response.

    Args:
        method: Ours, unobserved.
        watch: Who observes it.
    """

    def __init__(self, method: Any, watch: MethodWatch) -> None:
        self._method = method
        self._watch = watch

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls and returns the response."""
        call = self._watch.begin()
        try:
            response = self._method(
                request, timeout, call.on(metadata), credentials, wait_for_ready, compression
            )
        except BaseException as error:
            call.fail(error)
            raise
        call.end(OK)
        return response

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls and returns the response and the call."""
        call = self._watch.begin()
        try:
            both = self._method.with_call(
                request, timeout, call.on(metadata), credentials, wait_for_ready, compression
            )
        except BaseException as error:
            call.fail(error)
            raise
        call.end(OK)
        return both

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls in the background."""
        call = self._watch.begin()
        try:
            made = self._method.future(
                request, timeout, call.on(metadata), credentials, wait_for_ready, compression
            )
        except BaseException as error:
            call.fail(error)
            raise
        made.add_done_callback(partial(_future_over, call))
        return made


class StreamUnary(UnaryUnary, bases.StreamUnary):
    """A method with a stream of requests and one response."""


class Streaming(bases.UnaryStream, bases.StreamStream):
    """A method with a stream of responses."""

    def __init__(self, method: Any, watch: MethodWatch) -> None:
        self._method = method
        self._watch = watch

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls; the stream."""
        call = self._watch.begin()
        try:
            stream = self._method(
                request, timeout, call.on(metadata), credentials, wait_for_ready, compression
            )
        except BaseException as error:
            call.fail(error)
            raise
        stream.when_over(partial(_stream_over, call))
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


def _stream_over(call: Call, error: BaseException | None) -> None:
    if error is not None:
        call.fail(error)
    else:
        call.end(CANCELLED if call.last is None else call.last)


class AttemptUnary:
    """A method with one response at one replica; called as `shoal.methods.Send` does.

    Args:
        inner: grpc's.
        watch: Who observes it.
    """

    def __init__(self, inner: Any, watch: AttemptWatch) -> None:
        self._inner = inner
        self._begin = watch.begin

    def __call__(self, request: Any, timeout: Any, metadata: Any, *rest: Any) -> Any:
        """As grpc's."""
        attempt, sent = self._begin(metadata)
        token = sizes.set(attempt.sizes)
        try:
            response = self._inner(request, timeout, sent, *rest)
        except BaseException as error:
            attempt.fail(error)
            raise
        finally:
            sizes.reset(token)
        attempt.end(OK)
        return response

    def with_call(self, request: Any, timeout: Any, metadata: Any, *rest: Any) -> Any:
        """As grpc's."""
        attempt, sent = self._begin(metadata)
        token = sizes.set(attempt.sizes)
        try:
            both = self._inner.with_call(request, timeout, sent, *rest)
        except BaseException as error:
            attempt.fail(error)
            raise
        finally:
            sizes.reset(token)
        attempt.end(OK)
        return both

    def future(self, request: Any, timeout: Any, metadata: Any, *rest: Any) -> Any:
        """As grpc's."""
        attempt, sent = self._begin(metadata)
        token = sizes.set(attempt.sizes)
        try:
            made = self._inner.future(request, timeout, sent, *rest)
        except BaseException as error:
            attempt.fail(error)
            raise
        finally:
            sizes.reset(token)
        made.add_done_callback(partial(_attempt_over, attempt))
        return made


class AttemptStream:
    """A method with a stream of responses at one replica."""

    def __init__(self, inner: Any, watch: AttemptWatch) -> None:
        self._inner = inner
        self._begin = watch.begin

    def __call__(self, request: Any, timeout: Any, metadata: Any, *rest: Any) -> Any:
        """As grpc's."""
        attempt, sent = self._begin(metadata)
        try:
            stream = self._inner(request, timeout, sent, *rest)
        except BaseException as error:
            attempt.fail(error)
            raise
        over = partial(_attempt_over, attempt, stream)
        if not stream.add_callback(over):
            over()
        return stream


def _attempt_over(attempt: Attempt, ended: Any) -> None:
    code = ended.code()
    attempt.end(code, "" if code is OK else str(ended.details() or ""))
