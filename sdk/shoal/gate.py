"""The gate of a server: counts calls, notes strangers while it leaves, refuses at its end."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from shoal.connections import normal
from shoal.drain import Phase, Roster
from shoal.refusal import DRAINING, refuse, refuse_aio

REPLICA_SERVICE = "shoal.v1.Replica"
HEALTH_SERVICE = "grpc.health.v1.Health"

# What a draining replica answers on until its end; and what does not count as its work.
_ALWAYS = (f"/{REPLICA_SERVICE}/", f"/{HEALTH_SERVICE}/", "/grpc.reflection.")

_CLOSED = (Phase.REFUSING, Phase.STOPPING)
_SORRY = "this replica is shutting down; another one will take the call"


class _Wrapped:
    """Handlers and what they were wrapped into: a method's handler is the same for each call."""

    # An interceptor may make a new handler each time; then there is no use in remembering.
    _MOST = 1000

    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        self._wrap = wrap
        self._known: dict[str, tuple[Any, Any]] = {}

    def of(self, method: str, handler: Any) -> Any:
        known = self._known.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        if len(self._known) >= self._MOST:
            self._known.clear()
        wrapped = _swapped(handler, self._wrap)
        self._known[method] = (handler, wrapped)
        return wrapped


class Gate(grpc.ServerInterceptor):
    """For the blocking server; outermost of its interceptors.

    Args:
        roster: Who calls and what runs.
        care: Threads for hellos, goodbyes, health and refusals, which must be answered also when
            the service's own threads are all busy.
    """

    def __init__(self, roster: Roster, care: ThreadPoolExecutor) -> None:
        self._roster = roster
        self._counted = _Wrapped(self._counting)
        self._cared = _Wrapped(functools.partial(_on_pool, care))
        # One handler for methods of all kinds: it reads nothing of the request, and answers with a
        # status only.
        self._refusal: Any = grpc.stream_unary_rpc_method_handler(_on_pool(care, self._turn_away))

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Grpc's hook, once for each call."""
        method = handler_call_details.method
        always = method.startswith(_ALWAYS)
        if not always and self._roster.phase in _CLOSED:
            return self._refusal
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        return (self._cared if always else self._counted).of(method, handler)

    def _turn_away(self, _requests: Any, context: Any) -> Any:
        self._roster.refuse()
        refuse(context, _SORRY, reason=DRAINING, code=grpc.StatusCode.UNAVAILABLE)

    def _counting(self, behavior: Any) -> Any:
        roster = self._roster

        @functools.wraps(behavior)
        def counted(request: Any, context: Any, *rest: Any) -> Any:
            if roster.phase is not Phase.SERVING:
                roster.called(normal(context.peer()))
            roster.begin()
            # Told when the answer is sent and the call is over, also for streams.
            if not context.add_callback(roster.end):
                roster.end()
            return behavior(request, context, *rest)

        return counted


class AioGate(grpc.aio.ServerInterceptor):
    """The same for the asyncio server."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._counted = _Wrapped(self._counting)
        self._refusal: Any = grpc.stream_unary_rpc_method_handler(self._turn_away)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Grpc's hook, once for each call."""
        method = handler_call_details.method
        always = method.startswith(_ALWAYS)
        if not always and self._roster.phase in _CLOSED:
            return self._refusal
        handler = await continuation(handler_call_details)
        if handler is None or always:
            return handler
        return self._counted.of(method, handler)

    async def _turn_away(self, _requests: Any, context: Any) -> Any:
        self._roster.refuse()
        await refuse_aio(context, _SORRY, reason=DRAINING, code=grpc.StatusCode.UNAVAILABLE)

    def _enter(self, context: Any) -> None:
        if self._roster.phase is not Phase.SERVING:
            self._roster.called(normal(context.peer()))
        self._roster.begin()

    def _counting(self, behavior: Any) -> Any:
        # grpc.aio looks at what kind of function a handler is, so each kind keeps its kind.
        if inspect.isasyncgenfunction(behavior):
            return self._counting_stream(behavior)
        if inspect.iscoroutinefunction(behavior):
            return self._counting_coroutine(behavior)
        return self._counting_blocking(behavior)

    def _counting_stream(self, behavior: Any) -> Any:
        @functools.wraps(behavior)
        async def counted(request: Any, context: Any) -> Any:
            self._enter(context)
            context.add_done_callback(self._roster.end)
            async with aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    yield response

        return counted

    def _counting_coroutine(self, behavior: Any) -> Any:
        @functools.wraps(behavior)
        async def counted(request: Any, context: Any) -> Any:
            self._enter(context)
            context.add_done_callback(self._roster.end)
            return await behavior(request, context)

        return counted

    def _counting_blocking(self, behavior: Any) -> Any:
        """On the executor's threads, whose contexts tell nobody of a call's end."""
        if inspect.isgeneratorfunction(behavior):

            @functools.wraps(behavior)
            def streamed(request: Any, context: Any) -> Any:
                self._enter(context)
                try:
                    yield from behavior(request, context)
                finally:
                    self._roster.end()

            return streamed

        @functools.wraps(behavior)
        def counted(request: Any, context: Any) -> Any:
            self._enter(context)
            try:
                return behavior(request, context)
            finally:
                self._roster.end()

        return counted


def _on_pool(pool: ThreadPoolExecutor, behavior: Any) -> Any:
    @functools.wraps(behavior)
    def elsewhere(*arguments: Any) -> Any:
        return behavior(*arguments)

    # grpc's own word for it, experimental; where it is not heard, the common threads answer.
    elsewhere.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return elsewhere


def _swapped(handler: Any, wrap: Callable[[Any], Any]) -> Any:
    """The handler with its behaviour wrapped, whichever of the four kinds it is."""
    makers = {
        (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
    }
    make, behavior = makers[(bool(handler.request_streaming), bool(handler.response_streaming))]
    return make(wrap(behavior), handler.request_deserializer, handler.response_serializer)
