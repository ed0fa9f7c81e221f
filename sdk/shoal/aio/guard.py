"""Who may call an asyncio server; see `shoal.guard`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from shoal.gate import Wrapped, behavior_of
from shoal.guard import OPEN, Door


class AioGuard(grpc.aio.ServerInterceptor):
    """For the asyncio server.

    Args:
        door: Whom it lets in.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        # Within the gate, which heeds what can't be read.
        self._guarded = Wrapped(lambda handler: self._wrapped(behavior_of(handler)), heeds=False)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Grpc's hook, once for each call."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(OPEN):
            return handler
        return self._guarded.of(method, handler)

    def _wrapped(self, behavior: Any) -> Any:
        # grpc.aio looks at what kind of function a handler is, so each kind keeps its kind.
        door = self._door
        if inspect.isasyncgenfunction(behavior):

            @functools.wraps(behavior)
            async def streamed(request: Any, context: Any) -> Any:
                await _let_in(door, context)
                async with aclosing(behavior(request, context)) as responses:
                    async for response in responses:
                        yield response

            return streamed
        if inspect.iscoroutinefunction(behavior):

            @functools.wraps(behavior)
            async def called(request: Any, context: Any) -> Any:
                await _let_in(door, context)
                return await behavior(request, context)

            return called
        if inspect.isgeneratorfunction(behavior):

            @functools.wraps(behavior)
            def generated(request: Any, context: Any) -> Any:
                _let_in_blocking(door, context)
                yield from behavior(request, context)

            return generated

        @functools.wraps(behavior)
        def blocking(request: Any, context: Any) -> Any:
            _let_in_blocking(door, context)
            return behavior(request, context)

        return blocking


async def _let_in(door: Door, context: Any) -> None:
    refusal = door.refusal(context)
    if refusal is not None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)


def _let_in_blocking(door: Door, context: Any) -> None:
    """On the executor's threads, whose contexts may lack what the loop's have."""
    refusal = door.refusal(context)
    if refusal is not None:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
