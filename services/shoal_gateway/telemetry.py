"""Metrics and traces of a service: from its options and OpenTelemetry's own environment variables.

Off unless asked for: metrics by ``--metrics``, or both by ``OTEL_*``. Only then is OpenTelemetry
imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal.addresses import EVERYWHERE, split_address
from shoal_gateway import jobtraces
from shoal_gateway.jobtraces import JobSpan

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

EXTRA = "pip install 'shoal[otel]'"
OTLP = "opentelemetry-exporter-otlp-proto-grpc"

# What services count: unit, description, labels.
COUNTS = {
    "shoal.job.attempts": (
        "{attempt}",
        "Attempts at jobs that this app manager has reported, by outcome",
        ("shoal.outcome",),
    ),
}

Looks = Callable[[], Iterable[tuple[Sequence[str], float]]]


class TelemetryError(Exception):
    """What was asked for can't be had; says what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is observed.

    Attributes:
        page: (address, port) of the page for Prometheus; None: there is none.
        metrics: The exporter of metrics: "otlp", "console", or empty.
        traces: The exporter of spans, likewise.
    """

    page: tuple[str, int] | None = None
    metrics: str = ""
    traces: str = ""

    @classmethod
    def of(cls, page: tuple[str, int] | None, environment: Mapping[str, str]) -> Wanted:
        """What ``--metrics`` and the standard variables ask for.

        Raises:
            TelemetryError: they ask for an exporter that is not known here.
        """
        if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return cls(page)
        return cls(page, _exporter("METRICS", environment), _exporter("TRACES", environment))

    def __bool__(self) -> bool:
        return self.page is not None or bool(self.metrics or self.traces)


def _exporter(signal: str, environment: Mapping[str, str]) -> str:
    variable = f"OTEL_{signal}_EXPORTER"
    named = environment.get(variable, "").strip().lower()
    if named == "none":
        return ""
    if named in ("otlp", "console"):
        return named
    if named:
        raise TelemetryError(f"{variable}={named}: known here are otlp, console and none")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return "otlp" if any(environment.get(each, "").strip() for each in endpoints) else ""


def installed() -> bool:
    """Whether what ``shoal[otel]`` brings is there."""
    names = ("opentelemetry.sdk", "prometheus_client")
    try:
        return all(importlib.util.find_spec(name) is not None for name in names)
    except ModuleNotFoundError:
        return False


def address(text: str) -> tuple[str, int]:
    """``--metrics``: where the page is; a port alone is on 127.0.0.1.

    Raises:
        argparse.ArgumentTypeError: it can't be read.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be ADDR:PORT or PORT, like 127.0.0.1:9464; port 0 takes a free one"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def announced(page: str, host: str) -> str:
    """Where others find a page: at ``host`` if it is at every address of this machine."""
    bound, port = split_address(page)
    return _joined(host if bound in EVERYWHERE else bound, port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(slots=True)
class Telemetry:
    """What is observed in this process.

    Attributes:
        page: ``host:port`` of the page for Prometheus; empty when there is none.
    """

    page: str = ""
    _tables: Any = None
    _counts: dict[str, Any] = field(default_factory=dict)

    def count(self, name: str, *values: str) -> None:
        """Counts one of `COUNTS`; nothing where nobody reads it."""
        if self._tables is None:
            return
        found = self._counts.get(name)
        if found is None:
            unit, description, labels = COUNTS[name]
            found = self._counts[name] = self._tables.sum(name, unit, description, *labels)
        found.of(*values).add(1)

    def gauge(
        self,
        name: str,
        unit: str,
        description: str,
        names: Sequence[str],
        look: Looks,
        *,
        grows: bool = False,
    ) -> None:
        """Adds what is looked at when somebody reads it; nothing where nobody does."""
        if self._tables is not None:
            from shoal.otel import Gauge

            self._tables.watch(Gauge(name, unit, description, names, look, grows=grows))


_here = Telemetry()


def here() -> Telemetry:
    """What is observed in this process; it can be asked for gauges in any case."""
    return _here


@contextmanager
def observing(wanted: Wanted, facts: Mapping[str, str]) -> Iterator[Telemetry]:
    """Observes until the block ends, and hands over what there is then.

    Args:
        wanted: What.
        facts: Of the resource: ``service.name``, ``service.instance.id`` and so on.

    Raises:
        TelemetryError: a package is missing, or the page's address can't be bound.
    """
    global _here
    if not wanted:
        yield _here
        return
    before = _here
    with ExitStack() as ends:
        try:
            _here = _begun(wanted, facts, ends)
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        try:
            yield _here
        finally:
            _here, jobtraces.spans = before, None


def _missing(error: ModuleNotFoundError) -> TelemetryError:
    package = OTLP if "exporter" in (error.name or "") else None
    how = f"pip install {package}" if package else EXTRA
    return TelemetryError(f"metrics and traces need {error.name}, which is missing: {how}")


def _begun(wanted: Wanted, facts: Mapping[str, str], ends: ExitStack) -> Telemetry:
    # Before anything begins: what is missing is missed here, and modules are not made while threads
    # of the page, of readers and of processors may want the same ones.
    from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    import shoal.otel

    if wanted.page is not None:
        from shoal.otel import prometheus
    make_metrics = _metric_exporter(wanted.metrics)
    make_spans = _span_exporter(wanted.traces)
    # What OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say wins.
    told = OTELResourceDetector().detect().attributes
    ours = {name: value for name, value in facts.items() if value and name not in told}
    resource = Resource.create(ours)
    readers: list[Any] = []
    page = ""
    if wanted.page is not None:
        reader = prometheus.Reader()
        try:
            port, end = prometheus.serve(reader, *wanted.page)
        except OSError as error:
            host, port = wanted.page
            raise TelemetryError(
                f"--metrics {host}:{port} can't be bound: {error.strerror or error}. Give each"
                " replica of a host a port of its own, or port 0"
            ) from error
        ends.callback(end)
        readers.append(reader)
        page = _joined(wanted.page[0], port)
    if make_metrics is not None:
        readers.append(PeriodicExportingMetricReader(make_metrics()))
    meters = tracers = None
    if readers:
        meters = MeterProvider(
            readers, resource=resource, exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )  # fmt: skip
    if make_spans is not None:
        tracers = TracerProvider(resource=resource, id_generator=_ids(), shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(make_spans()))
        jobtraces.spans = OtelSpans(tracers)
    seen = shoal.otel.instrument(meters, tracers)
    # The last ones come first: readers are read once more at their end, and must find the tables.
    ends.callback(seen.close)
    for provider in (meters, tracers):
        if provider is not None:
            ends.callback(provider.shutdown)
    if page:
        logger.info("metrics at http://%s/metrics", page)
    for what, how in (("metrics", wanted.metrics), ("traces", wanted.traces)):
        if how:
            logger.info("%s go to %s", what, how)
    return Telemetry(page, seen.tables)


def _metric_exporter(named: str) -> Callable[[], Any] | None:
    if not named:
        return None
    if named == "console":
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

        return partial(ConsoleMetricExporter, out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter


def _span_exporter(named: str) -> Callable[[], Any] | None:
    if not named:
        return None
    if named == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return partial(ConsoleSpanExporter, out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter


# The id of the span that is made next here, where it was given out before.
_given: ContextVar[int | None] = ContextVar("shoal_given_span", default=None)


def _ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random ids, but for spans whose id was given out before they are told of."""

        def generate_span_id(self) -> int:
            given = _given.get()
            return super().generate_span_id() if given is None else given

    return Ids()


class OtelSpans:
    """`jobtraces.Spans` with OpenTelemetry.

    Args:
        provider: Made by `_begun`, whose ids may be given.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("shoal.gateway")
        self._random = provider.id_generator

    def child(self, parent: str) -> str:
        """The ``traceparent`` of a new span; as much recorded as its parent."""
        version, trace, _, flags = parent.split("-")
        return f"{version}-{trace}-{self._random.generate_span_id():016x}-{flags}"

    def ended(
        self, name: str, span: JobSpan, ended: float, facts: Mapping[str, Any], error: str
    ) -> None:
        """Records a span under the id that was given out for it."""
        from opentelemetry.trace import Status, StatusCode

        token = _given.set(int(span.own.split("-")[2], 16))
        try:
            made = self._tracer.start_span(
                name,
                context=_below(span.parent),
                start_time=int(span.began * 1e9),
                attributes=dict(facts),
            )
        finally:
            _given.reset(token)
        if error:
            made.set_status(Status(StatusCode.ERROR, error[:500]))
        made.end(int(max(ended, span.began) * 1e9))

    def current(self) -> str:
        """The ``traceparent`` of the span at work; empty when there is none."""
        from opentelemetry.trace import get_current_span

        from shoal.otel import tracing

        return tracing.header(get_current_span().get_span_context())

    @contextmanager
    def within(self, traceparent: str) -> Iterator[None]:
        """While calls made here belong to that span."""
        from opentelemetry import context as contexts

        token = contexts.attach(_below(traceparent))
        try:
            yield
        finally:
            contexts.detach(token)


def _below(traceparent: str) -> Context:
    from shoal.otel import tracing

    return tracing.below(traceparent)
