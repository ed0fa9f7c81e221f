"""What stands before the other interceptors of an observed server."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
import grpc.aio
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Span, Tracer

from shoal.gate import ALWAYS, Remade, behavior_of
from shoal.otel import tracing
from shoal.otel.measures import Measures
from shoal.otel.watching import CANCELLED, OK, UNKNOWN, clock, details_of

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Served:
    """One call while it is served."""

    __slots__ = ("_began", "_measures", "_method", "_received", "context", "span")

    def __init__(
        self, measures: Measures, tracer: Tracer | None, method: str, context: Any
    ) -> None:
        self._measures = measures
        self._method = method
        self._received = -1
        self.context = context
        self.span: Span | None = None
        if tracer is not None:
            self.span = tracing.received(tracer, method, context.invocation_metadata())
        measures.served_started.of(method).add(1)
        self._began = clock()

    def request(self, read: Any) -> Any:
        """The request, of what was read."""
        if type(read) is not _Sized:
            return read
        self._received = read.size
        return read.message

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While its handler runs on this thread, or in this task."""
        if self.span is None:
            yield
            return
        token = contexts.attach(trace.set_span_in_context(self.span))
        try:
            yield
        finally:
            contexts.detach(token)

    def end(self, error: BaseException | None = None) -> None:
        """Its handler has come to its end."""
        code = self._code(error)
        measures, method, name = self._measures, self._method, code.name
        measures.served_duration.of(method, name).add(clock() - self._began)
        if self._received >= 0:
            measures.served_received.of(method, name).add(self._received)
        if self.span is not None:
            tracing.ended(self.span, code, self._details(error))

    def _details(self, error: BaseException | None) -> str:
        """What its caller is told; of an abort the error itself says nothing."""
        said = getattr(self.context, "details", lambda: "")()
        told = said.decode(errors="replace") if isinstance(said, bytes) else said
        return told or (details_of(error) if error is not None else "")

    def _code(self, error: BaseException | None) -> grpc.StatusCode:
        said = getattr(self.context, "code", lambda: None)()
        code = _CODES.get(said) if isinstance(said, int) else said
        if isinstance(code, grpc.StatusCode) and code is not OK:
            return code
        if error is None:
            return OK
        return UNKNOWN if isinstance(error, Exception) else CANCELLED


class _Sized:
    """A request and its length: a blocking server reads it on another thread than it serves it."""

    __slots__ = ("message", "size")

    def __init__(self, message: Any, size: int) -> None:
        self.message = message
        self.size = size


class _Watch:
    """Wraps handlers."""

    def __init__(self, measures: Measures, tracer: Tracer | None) -> None:
        self._measures = measures
        self._tracer = tracer
        self.wrapped = Remade(self._made).of

    def _made(self, path: str, handler: Any) -> Any:
        method = path[1:]
        requests = "stream" if handler.request_streaming else "unary"
        responses = "stream" if handler.response_streaming else "unary"
        make = getattr(grpc, f"{requests}_{responses}_rpc_method_handler")
        reads, writes = handler.request_deserializer, handler.response_serializer
        if requests == responses == "unary":
            reads, writes = _read(reads), self._written(method, writes)
        begin = functools.partial(Served, self._measures, self._tracer, method)
        around = self.around(behavior_of(handler), begin, streams=handler.response_streaming)
        return make(around, reads, writes)

    def _written(self, method: str, serializer: Any) -> Any:
        sent = self._measures.served_sent

        def written(message: Any) -> Any:
            data = serializer(message) if serializer is not None else message
            # Only what a handler returned is serialized.
            sent.of(method, OK.name).add(len(data))
            return data

        return written

    def around(self, behavior: Any, begin: Callable[[Any], Served], *, streams: bool) -> Any:
        """A handler's function, observed."""
        return (_stream if streams else _unary)(behavior, begin)


class Interceptor(_Watch, grpc.ServerInterceptor):
    """For the blocking server."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Grpc's hook, once for each call."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(ALWAYS):
            return handler
        return self.wrapped(method, handler)


class AioInterceptor(_Watch, grpc.aio.ServerInterceptor):
    """For the asyncio server."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Grpc's hook, once for each call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(ALWAYS):
            return handler
        return self.wrapped(method, handler)

    def around(self, behavior: Any, begin: Callable[[Any], Served], *, streams: bool) -> Any:
        """A handler's function, of the kind that it was."""
        if inspect.isasyncgenfunction(behavior):
            return _async_stream(behavior, begin)
        if inspect.iscoroutinefunction(behavior):
            return _async_unary(behavior, begin)
        return super().around(behavior, begin, streams=streams)


def _read(deserializer: Any) -> Any:
    def read(data: Any) -> Any:
        return _Sized(deserializer(data) if deserializer is not None else data, len(data))

    return read


def _unary(behavior: Any, begin: Callable[[Any], Served]) -> Any:
    @functools.wraps(behavior)
    def observed(request: Any, context: Any, *rest: Any) -> Any:
        served = begin(context)
        try:
            with served.at_work():
                answer = behavior(served.request(request), context, *rest)
        except BaseException as error:
            served.end(error)
            raise
        served.end()
        return answer

    return observed


def _stream(behavior: Any, begin: Callable[[Any], Served]) -> Any:
    @functools.wraps(behavior)
    def observed(request: Any, context: Any, *rest: Any) -> Any:
        # Its pieces may be made on different threads: what it calls is in no span of ours.
        served = begin(context)
        try:
            yield from behavior(request, context, *rest)
        except BaseException as error:
            served.end(error)
            raise
        served.end()

    return observed


def _async_unary(behavior: Any, begin: Callable[[Any], Served]) -> Any:
    @functools.wraps(behavior)
    async def observed(request: Any, context: Any) -> Any:
        served = begin(context)
        try:
            with served.at_work():
                answer = await behavior(served.request(request), context)
        except BaseException as error:
            served.end(error)
            raise
        served.end()
        return answer

    return observed


def _async_stream(behavior: Any, begin: Callable[[Any], Served]) -> Any:
    @functools.wraps(behavior)
    async def observed(request: Any, context: Any) -> Any:
        served = begin(context)
        try:
            if served.span is not None:
                # For the rest of the task, which is this call's own.
                contexts.attach(trace.set_span_in_context(served.span))
            async with aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    yield response
        except BaseException as error:
            served.end(error)
            raise
        served.end()

    return observed
