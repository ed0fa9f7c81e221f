"""Requests whose bytes are not the message that their method takes.

Left to grpc they count as a defect of the handler: UNKNOWN with the name of a Python class from an
asyncio server, INTERNAL from a blocking one, with a traceback in the log each time. They are the
caller's mistake, so they are answered with INVALID_ARGUMENT, and the handler never hears of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import grpc

WORDS = "the bytes of the request are not the message that this method takes"


class MalformedRequestError(Exception):
    """A message of a request stream can't be read. An asyncio handler lets it through."""


# What a handler would have been given.
_MALFORMED: Any = object()


class _Requests:
    """A blocking handler's request stream; the call ends where a message can't be read."""

    def __init__(self, requests: Any, context: Any) -> None:
        self._requests = requests
        self._context = context

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> Any:
        found = next(self._requests)
        if found is _MALFORMED:
            # Here, for what a blocking handler returns is iterated by grpc and not by us.
            self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, WORDS)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)


def reading(handler: Any, behavior: Any) -> Any:
    """A handler's deserializer, for a behaviour that `heeding` has made."""
    deserialize = handler.request_deserializer
    if deserialize is None:
        return None
    # There the handler itself waits for each message, and so for the error.
    within = handler.request_streaming and _awaited(behavior)

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception as error:
            if within:
                raise MalformedRequestError(WORDS) from error
            return _MALFORMED

    return read


def _awaited(behavior: Any) -> bool:
    return inspect.isasyncgenfunction(behavior) or inspect.iscoroutinefunction(behavior)


def heeding(handler: Any, behavior: Callable[..., Any]) -> Any:
    """A handler's function, called with requests that could be read; of the same kind."""
    if handler.request_streaming and not _awaited(behavior):
        behavior = _over_requests(behavior)
    if inspect.isasyncgenfunction(behavior):
        return _async_stream(behavior)
    if inspect.iscoroutinefunction(behavior):
        return _coroutine(behavior)
    if inspect.isgeneratorfunction(behavior):
        return _stream(behavior)
    return _blocking(behavior)


def _over_requests(behavior: Any) -> Any:
    if inspect.isgeneratorfunction(behavior):

        @functools.wraps(behavior)
        def streamed(requests: Any, context: Any, *rest: Any) -> Any:
            yield from behavior(_Requests(requests, context), context, *rest)

        return streamed

    @functools.wraps(behavior)
    def called(requests: Any, context: Any, *rest: Any) -> Any:
        return behavior(_Requests(requests, context), context, *rest)

    return called


def _async_stream(behavior: Any) -> Any:
    @functools.wraps(behavior)
    async def heeded(request: Any, context: Any) -> Any:
        if request is _MALFORMED:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, WORDS)
        try:
            async with aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    yield response
        except MalformedRequestError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, WORDS)

    return heeded


def _coroutine(behavior: Any) -> Any:
    @functools.wraps(behavior)
    async def heeded(request: Any, context: Any) -> Any:
        if request is _MALFORMED:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, WORDS)
        try:
            return await behavior(request, context)
        except MalformedRequestError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, WORDS)

    return heeded


def _stream(behavior: Any) -> Any:
    @functools.wraps(behavior)
    def heeded(request: Any, context: Any, *rest: Any) -> Any:
        if request is _MALFORMED:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, WORDS)
        yield from behavior(request, context, *rest)

    return heeded


def _blocking(behavior: Any) -> Any:
    @functools.wraps(behavior)
    def heeded(request: Any, context: Any, *rest: Any) -> Any:
        if request is _MALFORMED:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, WORDS)
        return behavior(request, context, *rest)

    return heeded
