"""W3C trace context, and the spans of gRFC A72: Sent, Attempt and Recv."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import grpc
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
)

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

_FORM = re.compile(r"^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$")


def header(context: SpanContext) -> str:
    """A span as ``traceparent`` says it; empty for one that is none."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def parsed(traceparent: str, tracestate: str = "") -> SpanContext | None:
    """The span that a ``traceparent`` names; None when it names none."""
    found = _FORM.match(traceparent)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    made = SpanContext(
        trace_id=int(found[2], 16),
        span_id=int(found[3], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(found[4], 16) & TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([tracestate]) if tracestate else None,
    )
    return made if made.is_valid else None


def below(traceparent: str, tracestate: str = "") -> contexts.Context:
    """A context in which that span is the current one; an empty one when there is none."""
    found = parsed(traceparent, tracestate)
    if found is None:
        return contexts.Context()
    return trace.set_span_in_context(NonRecordingSpan(found), contexts.Context())


def below_metadata(metadata: Iterable[Any] | None) -> contexts.Context:
    """The same, out of a call's metadata."""
    parent = state = ""
    for key, value in metadata or ():
        if key == TRACEPARENT:
            parent = value
        elif key == TRACESTATE:
            state = value
    return below(parent, state)


def carrying(metadata: Iterable[Any], span: Span) -> tuple[Any, ...]:
    """A call's metadata with the span that it is made in, in the place of any other one's."""
    context = span.get_span_context()
    parent = header(context)
    if not parent:
        return tuple(metadata)
    state = context.trace_state.to_header() if context.trace_state else ""
    others = [each for each in metadata if each[0] not in (TRACEPARENT, TRACESTATE)]
    own = ((TRACEPARENT, parent), (TRACESTATE, state)) if state else ((TRACEPARENT, parent),)
    return (*others, *own)


def sent(tracer: Tracer, method: str) -> Span:
    """The span of a call, below what is at work."""
    return tracer.start_span(
        f"Sent.{method}", kind=SpanKind.CLIENT, attributes={"rpc.system": "grpc"}
    )


def attempted(tracer: Tracer, method: str, call: Span, before: int, **facts: str) -> Span:
    """The span of one attempt of a call."""
    return tracer.start_span(
        f"Attempt.{method}",
        context=trace.set_span_in_context(call, contexts.Context()),
        kind=SpanKind.CLIENT,
        attributes={
            "previous-rpc-attempts": before,
            "transparent-retry": False,
            **{name.replace("_", "."): value for name, value in facts.items()},
        },
    )


def received(tracer: Tracer, method: str, metadata: Iterable[Any] | None) -> Span:
    """The span of a call's handler."""
    return tracer.start_span(
        f"Recv.{method}",
        context=below_metadata(metadata),
        kind=SpanKind.SERVER,
        attributes={"rpc.system": "grpc"},
    )


def ended(span: Span, code: grpc.StatusCode, details: str = "") -> None:
    """Ends a span as its call ended."""
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code is not grpc.StatusCode.OK:
        span.set_status(Status(StatusCode.ERROR, f"{code.name}: {details}"[:500]))
    span.end()
