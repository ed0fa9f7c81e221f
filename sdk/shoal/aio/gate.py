"""The gate of an asyncio server; see `shoal.gate`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
import grpc.aio

from shoal.admission import Admission, Ticket
from shoal.aio.reported import BlockingReportedContext, ReportedContext
from shoal.connections import normal
from shoal.drain import Phase, Roster
from shoal.gate import ALWAYS, CLOSED, SORRY, Wrapped, behavior_of, is_repeated, is_unary
from shoal.lineage import attempt_in
from shoal.refusal import DRAINING, OVERLOADED, Trailers, refuse, refuse_aio
from shoal.reporter import LoadReporter
from shoal.visits import Visit


class AioGate(grpc.aio.ServerInterceptor):
    """Outermost of the server's interceptors.

    Args:
        roster: Who calls and what runs.
        reports: Makes load reports; None sends none.
        admission: The server's limit; None without one.
    """

    def __init__(
        self,
        roster: Roster,
        reports: LoadReporter | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._roster = roster
        self._reports = reports
        self._admission = admission
        self._first = Wrapped(functools.partial(self._wrapped, repeated=False))
        self._repeated = Wrapped(functools.partial(self._wrapped, repeated=True))
        self._cared = Wrapped(behavior_of)
        self._closed: Any = grpc.stream_unary_rpc_method_handler(self._turn_away)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Grpc's hook, once for each call."""
        method = handler_call_details.method
        always = method.startswith(ALWAYS)
        if not always and self._roster.phase in CLOSED:
            return self._closed
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if always:
            return self._cared.of(method, handler)
        repeated = is_repeated(handler_call_details.invocation_metadata)
        return (self._repeated if repeated else self._first).of(method, handler)

    async def _turn_away(self, _requests: Any, context: Any) -> Any:
        self._roster.refuse()
        code = grpc.StatusCode.UNAVAILABLE
        await refuse_aio(context, SORRY, reason=DRAINING, code=code, also=self._also())

    def _also(self) -> Trailers:
        return self._reports.trailers() if self._reports is not None else ()

    def _wrapped(self, handler: Any, *, repeated: bool) -> Any:
        # grpc.aio looks at what kind of function a handler is, so each kind keeps its kind.
        behavior = behavior_of(handler)
        visited = self._reports is not None or repeated
        admission = self._admission if is_unary(handler) else None
        if inspect.isasyncgenfunction(behavior):
            inner = self._visited_stream(behavior, repeated=repeated) if visited else behavior
            return self._counting_stream(inner)
        if inspect.iscoroutinefunction(behavior):
            inner = self._visited_coroutine(behavior, repeated=repeated) if visited else behavior
            counted = self._counting_coroutine(inner)
            return self._admitted_coroutine(counted, admission) if admission else counted
        inner = self._visited_blocking(behavior, repeated=repeated) if visited else behavior
        counted = self._counting_blocking(inner)
        return self._admitted_blocking(counted, admission) if admission else counted

    def _enter(self, context: Any) -> None:
        if self._roster.phase is not Phase.SERVING:
            self._roster.called(normal(context.peer()))
        self._roster.begin()

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

    def _visit(self, context: Any, reported: Any, *, repeated: bool) -> tuple[Any, Visit]:
        reports = self._reports
        seen = context if reports is None else reported(context, reports)
        return seen, Visit(seen, reports, repeated=repeated)

    def _visited_stream(self, behavior: Any, *, repeated: bool) -> Any:
        @functools.wraps(behavior)
        async def visited(request: Any, context: Any) -> Any:
            seen, visit = self._visit(context, ReportedContext, repeated=repeated)
            with visit:
                async with aclosing(behavior(request, seen)) as responses:
                    async for response in responses:
                        yield response

        return visited

    def _visited_coroutine(self, behavior: Any, *, repeated: bool) -> Any:
        @functools.wraps(behavior)
        async def visited(request: Any, context: Any) -> Any:
            seen, visit = self._visit(context, ReportedContext, repeated=repeated)
            with visit:
                return await behavior(request, seen)

        return visited

    def _visited_blocking(self, behavior: Any, *, repeated: bool) -> Any:
        if inspect.isgeneratorfunction(behavior):

            @functools.wraps(behavior)
            def streamed(request: Any, context: Any) -> Any:
                seen, visit = self._visit(context, BlockingReportedContext, repeated=repeated)
                with visit:
                    yield from behavior(request, seen)

            return streamed

        @functools.wraps(behavior)
        def visited(request: Any, context: Any) -> Any:
            seen, visit = self._visit(context, BlockingReportedContext, repeated=repeated)
            with visit:
                return behavior(request, seen)

        return visited

    def _admitted_coroutine(self, behavior: Any, admission: Admission) -> Any:
        @functools.wraps(behavior)
        async def admitted(request: Any, context: Any) -> Any:
            ticket = admission.try_enter() or admission.try_enter(
                attempt_in(context.invocation_metadata())
            )
            if ticket is None:
                message, pushback = admission.turn_away()
                also = self._also()
                await refuse_aio(context, message, reason=OVERLOADED, pushback=pushback, also=also)
            with _inside(admission, ticket):
                return await behavior(request, context)

        return admitted

    def _admitted_blocking(self, behavior: Any, admission: Admission) -> Any:
        @functools.wraps(behavior)
        def admitted(request: Any, context: Any) -> Any:
            ticket = admission.try_enter() or admission.try_enter(
                attempt_in(context.invocation_metadata())
            )
            if ticket is None:
                message, pushback = admission.turn_away()
                also = self._also()
                refuse(context, message, reason=OVERLOADED, pushback=pushback, also=also)
            with _inside(admission, ticket):
                return behavior(request, context)

        return admitted


@contextmanager
def _inside(admission: Admission, ticket: Ticket) -> Iterator[None]:
    try:
        yield
    finally:
        admission.leave(ticket)
