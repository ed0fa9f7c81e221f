"""Observed channels to real servers, and what was measured and traced of them."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shoal.otel
from shoal.testing import FixedDirectory
from tests.support.echo import EchoServer
from tests.support.waiting import eventually


@pytest.fixture
def servers():
    made = [EchoServer(name) for name in "ab"]
    yield made
    for server in made:
        server.stop()


@pytest.fixture
def directory(servers):
    with FixedDirectory({"echo": [server.target for server in servers]}) as made:
        yield made


class Seen:
    """What was measured and traced so far."""

    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])

    def points(self, name, **labels):
        """Points of a metric with these labels; ``method`` is the Echo method's name."""
        wanted = {f"grpc.{key}": value for key, value in labels.items()}
        if "method" in labels:
            wanted["grpc.method"] = f"shoal.testing.v1.Echo/{labels['method']}"
        return [
            point
            for resource in self.reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            if wanted.items() <= dict(point.attributes).items()
        ]

    def count(self, name, **labels):
        """Of a histogram how many values it has, of a counter its value."""
        return sum(getattr(each, "count", None) or getattr(each, "value", 0)
                   for each in self.points(name, **labels))  # fmt: skip

    def counts(self, number, name, **labels):
        """Waits until it is that: streams and futures end on threads of grpc's."""
        eventually(lambda: self.count(name, **labels) == number, what=f"{number} of {name}")

    def spans(self, name):
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(name)]


@pytest.fixture
def seen():
    made = Seen()
    with shoal.otel.instrument(made.meters, made.tracers):
        yield made
    made.meters.shutdown()
    made.tracers.shutdown()
