"""The gate of a server: counts calls, turns them away when it is full or leaves, adds reports."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from shoal import malformed
from shoal.admission import Admission, Lane
from shoal.connections import normal
from shoal.drain import Phase, Roster
from shoal.lineage import ATTEMPT_KEY, attempt_in
from shoal.refusal import DRAINING, OVERLOADED, Trailers, refuse
from shoal.reporter import LoadReporter
from shoal.visits import Visit

REPLICA_SERVICE = "shoal.v1.Replica"
HEALTH_SERVICE = "grpc.health.v1.Health"

# What a draining replica answers on until its end; and what does not count as its work.
ALWAYS = (f"/{REPLICA_SERVICE}/", f"/{HEALTH_SERVICE}/", "/grpc.reflection.")

CLOSED = (Phase.REFUSING, Phase.STOPPING)
SORRY = "this replica is shutting down; another one will take the call"


class Remade:
    """Handlers and what was made of them: a method's handler is the same for each call.

    Args:
        make: Makes a new handler of a method's own.
    """

    # An interceptor may make a new handler each time; then there is no use in remembering.
    _MOST = 1000

    def __init__(self, make: Callable[[str, Any], Any]) -> None:
        self._make = make
        self._known: dict[str, tuple[Any, Any]] = {}

    def of(self, method: str, handler: Any) -> Any:
        """What was made of the handler."""
        known = self._known.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        if len(self._known) >= self._MOST:
            self._known.clear()
        made = self._make(method, handler)
        self._known[method] = (handler, made)
        return made


class Wrapped(Remade):
    """Handlers with their behaviour wrapped.

    Args:
        wrap: Makes the new behaviour of a handler.
        heeds: Whether requests that can't be read are answered here, and not by who wraps it next.
    """

    def __init__(self, wrap: Callable[[Any], Any], *, heeds: bool = True) -> None:
        super().__init__(lambda _, handler: _swapped(handler, wrap(handler), heeds=heeds))


class Gate(grpc.ServerInterceptor):
    """For the blocking server; outermost of its interceptors.

    Args:
        roster: Who calls and what runs.
        care: Threads for hellos, goodbyes, health and refusals, which must be answered also when
            the service's own threads are all busy.
        pool: The service's own threads.
        reports: Makes load reports; None sends none.
        admission: The server's limit; None without one.
    """

    def __init__(
        self,
        roster: Roster,
        care: ThreadPoolExecutor,
        pool: ThreadPoolExecutor,
        reports: LoadReporter | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._roster = roster
        self._pool = pool
        self._reports = reports
        self._admission = admission
        self._first = Wrapped(functools.partial(self._wrapped, repeated=False))
        self._repeated = Wrapped(functools.partial(self._wrapped, repeated=True))
        self._cared = Wrapped(lambda handler: _on_pool(care, behavior_of(handler)))
        # One handler for methods of all kinds: it reads nothing of the request, and answers with a
        # status only.
        self._closed: Any = grpc.stream_unary_rpc_method_handler(_on_pool(care, self._turn_away))
        if admission is not None:
            put_off = _on_pool(care, functools.partial(self._put_off, admission))
            self._full: Any = grpc.stream_unary_rpc_method_handler(put_off)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Grpc's hook, once for each call."""
        method = handler_call_details.method
        if method.startswith(ALWAYS):
            handler = continuation(handler_call_details)
            return None if handler is None else self._cared.of(method, handler)
        if self._roster.phase in CLOSED:
            return self._closed
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        if (
            self._admission is not None
            and self._admission.full
            and is_unary(handler)
            and self._admission.full_for(attempt_in(handler_call_details.invocation_metadata))
        ):
            return self._full
        repeated = is_repeated(handler_call_details.invocation_metadata)
        return (self._repeated if repeated else self._first).of(method, handler)

    def _turn_away(self, _requests: Any, context: Any) -> Any:
        self._roster.refuse()
        refuse(context, SORRY, reason=DRAINING, code=grpc.StatusCode.UNAVAILABLE, also=self._also())

    def _put_off(self, admission: Admission, _requests: Any, context: Any) -> Any:
        message, pushback = admission.turn_away()
        refuse(context, message, reason=OVERLOADED, pushback=pushback, also=self._also())

    def _also(self) -> Trailers:
        return self._reports.trailers() if self._reports is not None else ()

    def _wrapped(self, handler: Any, *, repeated: bool) -> Any:
        behavior = behavior_of(handler)
        inner = behavior
        if self._reports is not None or repeated:
            visited = self._visited_stream if handler.response_streaming else self._visited
            inner = visited(behavior, repeated=repeated)
        counted = self._counting(inner)
        if self._admission is not None and is_unary(handler):
            pool = getattr(behavior, "experimental_thread_pool", self._pool)
            return _on_pool(Lane(pool, self._admission), counted)
        return counted

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

    def _visited(self, behavior: Any, *, repeated: bool) -> Any:
        reports = self._reports

        @functools.wraps(behavior)
        def visited(request: Any, context: Any, *rest: Any) -> Any:
            with Visit(context, reports, repeated=repeated):
                return behavior(request, context, *rest)

        return visited

    def _visited_stream(self, behavior: Any, *, repeated: bool) -> Any:
        reports = self._reports

        @functools.wraps(behavior)
        def visited(request: Any, context: Any) -> Any:
            with Visit(context, reports, repeated=repeated):
                yield from behavior(request, context)

        return visited


def is_unary(handler: Any) -> bool:
    """Whether a handler takes one request and gives one answer."""
    return not (handler.request_streaming or handler.response_streaming)


def is_repeated(metadata: Any) -> bool:
    """Whether a call is not its caller's first attempt."""
    return any(key == ATTEMPT_KEY for key, _ in metadata or ())


def behavior_of(handler: Any) -> Any:
    """A handler's function, whichever of the four kinds it is."""
    return getattr(handler, _kind(handler))


def _kind(handler: Any) -> str:
    requests = "stream" if handler.request_streaming else "unary"
    responses = "stream" if handler.response_streaming else "unary"
    return f"{requests}_{responses}"


def _on_pool(pool: ThreadPoolExecutor, behavior: Any) -> Any:
    @functools.wraps(behavior)
    def elsewhere(*arguments: Any) -> Any:
        return behavior(*arguments)

    # grpc's own word for it, experimental; where it is not heard, the common threads answer.
    elsewhere.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return elsewhere


def _swapped(handler: Any, behavior: Any, *, heeds: bool) -> Any:
    make = getattr(grpc, f"{_kind(handler)}_rpc_method_handler")
    if not heeds:
        return make(behavior, handler.request_deserializer, handler.response_serializer)
    return make(
        malformed.heeding(handler, behavior),
        malformed.reading(handler, behavior),
        handler.response_serializer,
    )
