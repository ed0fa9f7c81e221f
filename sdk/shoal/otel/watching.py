"""A call and its attempts while they are under way: what is measured of them, and their spans.

A call goes with its own metadata, as the value of the entry that becomes ``traceparent`` on the
wire: so its attempts find it, whichever thread or task sends them.
"""

from __future__ import annotations

import time
import weakref
from contextvars import ContextVar
from typing import Any, Self

import grpc
from opentelemetry.trace import Span, Tracer

from shoal.otel import tracing
from shoal.otel.measures import Measures
from shoal.otel.tables import Series
from shoal_balancer import Replica

OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED
UNKNOWN = grpc.StatusCode.UNKNOWN

clock = time.perf_counter


class Sizes:
    """Bytes of one attempt's request and response; -1 until they are known.

    Attributes:
        late: Where a response is to be written down that is read after its attempt's end: on
            asyncio the status comes before it.
    """

    __slots__ = ("late", "received", "sent")

    def __init__(self) -> None:
        self.sent = self.received = -1
        self.late: Series | None = None


# Those of the attempt that is at work here: grpc serializes on its caller's thread, or in a task
# that has its caller's context.
sizes: ContextVar[Sizes | None] = ContextVar("shoal_otel_sizes", default=None)


def code_of(error: BaseException) -> grpc.StatusCode:
    """The status of what a call raised."""
    code = getattr(error, "code", None)
    found = code() if callable(code) else None
    if isinstance(found, grpc.StatusCode):
        return found
    return UNKNOWN if isinstance(error, Exception) else CANCELLED


def details_of(error: BaseException) -> str:
    """What the status of what a call raised says; else what the error says."""
    details = getattr(error, "details", None)
    return str((details() if callable(details) else "") or error)


class MethodWatch:
    """One method of one channel.

    Args:
        measures: Where it is counted.
        tracer: Makes spans; None makes none.
        target: ``grpc.target``.
        method: Without the leading slash.
        hedged: Whether its calls may be: only then is an attempt beside another one a hedge. The
            end of a stream may be heard of after the next attempt's begin.
    """

    def __init__(
        self,
        measures: Measures,
        tracer: Tracer | None,
        target: str,
        method: str,
        *,
        hedged: bool = True,
    ) -> None:
        self.measures = measures
        self.tracer = tracer
        self.target = target
        self.method = method
        self.hedged = hedged
        self.started = measures.attempt_started.of(method, target)
        self._durations: dict[grpc.StatusCode, Series] = {}
        self._attempts: dict[str, AttemptWatch] = {}

    def begin(self) -> Call:
        """A call is made."""
        return Call(self)

    def duration(self, code: grpc.StatusCode) -> Series:
        """Where a call that ended so is written down."""
        found = self._durations.get(code)
        if found is None:
            found = self.measures.call_duration.of(self.method, self.target, code.name)
            self._durations[code] = found
        return found


class AttemptWatch:
    """One method at one replica."""

    def __init__(self, watch: MethodWatch, replica: Replica) -> None:
        self.watch = watch
        self.replica = replica
        self.started = watch.started.add
        self._series: dict[grpc.StatusCode, tuple[Series, Series, Series]] = {}

    def begin(self, metadata: Any) -> tuple[Attempt, Any]:
        """An attempt is sent; what is watched of it, and the metadata that goes with it."""
        call: Call | None = None
        for at in range(len(metadata or ()) - 1, -1, -1):
            if type(metadata[at][1]) is Call:
                call = metadata[at][1]
                metadata = (*metadata[:at], *metadata[at + 1 :])
                break
        self.started(1)
        attempt = Attempt(self, call)
        if attempt.span is not None:
            metadata = tracing.carrying(metadata, attempt.span)
        return attempt, metadata or None

    def series(self, code: grpc.StatusCode) -> tuple[Series, Series, Series]:
        """Where an attempt that ended so is written down."""
        found = self._series.get(code)
        if found is None:
            watch, measures = self.watch, self.watch.measures
            labels = (watch.method, watch.target, self.replica.zone, code.name)
            found = self._series[code] = (
                measures.attempt_duration.of(*labels),
                measures.attempt_sent.of(*labels),
                measures.attempt_received.of(*labels),
            )
        return found


class Call(str):
    """One call. A string for those who look at its metadata on the way: empty."""

    __slots__ = ("_idle", "_over", "attempts", "began", "delay", "hedges", "last", "running",
                 "span", "waiter", "watch")  # fmt: skip

    watch: MethodWatch
    span: Span | None
    began: float
    # Attempts so far, copies beside one under way among them, and those under way.
    attempts: int
    hedges: int
    running: int
    # Seconds without an attempt under way, and since when there is none.
    delay: float
    _idle: float
    # How the last attempt ended.
    last: grpc.StatusCode | None
    _over: bool
    # On asyncio the call that its caller holds, while one attempt is all of it.
    waiter: weakref.ref[Any] | None

    def __new__(cls, watch: MethodWatch) -> Self:
        """A call that begins now."""
        self = str.__new__(cls)
        self.watch = watch
        self.attempts = self.hedges = self.running = 0
        self.delay = self._idle = 0.0
        self.last = None
        self._over = False
        self.waiter = None
        tracer = watch.tracer
        self.span = tracing.sent(tracer, watch.method) if tracer is not None else None
        self.began = clock()
        return self

    def __repr__(self) -> str:
        return f"<Call {self.watch.method}>"

    def on(self, metadata: Any) -> tuple[Any, ...]:
        """The caller's metadata, with this call."""
        return (
            (*metadata, (tracing.TRACEPARENT, self)) if metadata else ((tracing.TRACEPARENT, self),)
        )

    def watch_for(self, waiter: weakref.ref[Any]) -> None:
        """Its first attempt is under way, and may have ended already."""
        self.waiter = waiter

    def sending(self) -> None:
        """One more attempt."""
        if self.attempts:
            if self.running > 0:
                self.hedges += self.watch.hedged
            elif self._idle:
                self.delay += clock() - self._idle
        self.attempts += 1
        self.running += 1

    def sent(self, code: grpc.StatusCode) -> None:
        """An attempt has ended."""
        self.last = code
        self.running -= 1
        if code is not OK and not self.running:
            self._idle = clock()

    def end(self, code: grpc.StatusCode, details: str = "") -> None:
        """It is over; said again, it changes nothing."""
        if self._over:
            return
        self._over = True
        watch = self.watch
        watch.duration(code).add(clock() - self.began)
        if self.attempts > 1:
            self._repeated()
        if self.span is not None:
            tracing.ended(self.span, code, details)

    def fail(self, error: BaseException) -> None:
        """It is over, by this error."""
        self.end(code_of(error), details_of(error))

    def _repeated(self) -> None:
        watch = self.watch
        measures, labels = watch.measures, (watch.method, watch.target)
        retries = self.attempts - 1 - self.hedges
        if retries:
            measures.retries.of(*labels).add(retries)
            measures.retry_delay.of(*labels).add(self.delay)
        if self.hedges:
            measures.hedges.of(*labels).add(self.hedges)


class Attempt:
    """One attempt of a call at one replica."""

    __slots__ = ("_began", "_watch", "call", "sizes", "span")

    def __init__(self, watch: AttemptWatch, call: Call | None) -> None:
        self._watch = watch
        self.call = call
        self.sizes = Sizes()
        self.span: Span | None = None
        if call is not None:
            call.sending()
            tracer = watch.watch.tracer
            if tracer is not None and call.span is not None:
                replica = watch.replica
                self.span = tracing.attempted(
                    tracer,
                    watch.watch.method,
                    call.span,
                    call.attempts - 1,
                    shoal_replica=replica.id,
                    server_address=replica.target,
                )
        self._began = clock()

    def end(self, code: grpc.StatusCode, details: str = "") -> None:
        """It has ended."""
        taken = clock() - self._began
        duration, sent, received = self._watch.series(code)
        duration.add(taken)
        noted = self.sizes
        if noted.sent >= 0:
            sent.add(noted.sent)
        if noted.received >= 0:
            received.add(noted.received)
        else:
            noted.late = received
        if self.call is not None:
            self.call.sent(code)
        if self.span is not None:
            tracing.ended(self.span, code, details)

    def fail(self, error: BaseException) -> None:
        """It has ended, by this error."""
        self.end(code_of(error), details_of(error))


def measured_request(serializer: Any) -> Any:
    """A serializer that notes how long a message is."""

    def written(message: Any) -> Any:
        data = serializer(message) if serializer is not None else message
        noted = sizes.get()
        if noted is not None:
            noted.sent = len(data)
        return data

    return written


def measured_response(deserializer: Any) -> Any:
    """A deserializer that notes how long a message is."""

    def read(data: Any) -> Any:
        noted = sizes.get()
        if noted is not None:
            noted.received = len(data)
            if noted.late is not None:
                noted.late.add(len(data))
        return deserializer(data) if deserializer is not None else data

    return read
