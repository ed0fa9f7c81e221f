"""An OTLP collector in this process: real exporters send to it over real gRPC."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class Seen:
    """A span as it came."""

    service: str
    replica: str
    name: str
    trace: str
    id: str
    parent: str
    facts: dict
    failed: bool
    nanoseconds: int


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps all that is sent to it, until the block ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Seen] = []
        self._metrics: set[tuple[str, str]] = set()
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(0).wait(10)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Seen]:
        with self._lock:
            return list(self._spans)

    @property
    def metrics(self) -> set[tuple[str, str]]:
        """(service, name) of what has come."""
        with self._lock:
            return set(self._metrics)

    def trace(self, trace_id: str) -> list[Seen]:
        """All spans of a trace."""
        return [span for span in self.spans if span.trace == trace_id]

    def Export(self, request, context):
        for resource in request.resource_spans:
            about = _facts(resource.resource.attributes)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    seen = Seen(
                        about.get("service.name", ""),
                        about.get("service.instance.id", ""),
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        _facts(span.attributes),
                        span.status.code == 2,
                        span.end_time_unix_nano - span.start_time_unix_nano,
                    )
                    with self._lock:
                        self._spans.append(seen)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector) -> None:
        self._collector = collector

    def Export(self, request, context):
        for resource in request.resource_metrics:
            service = _facts(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_metrics:
                with self._collector._lock:
                    self._collector._metrics |= {(service, each.name) for each in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _facts(attributes) -> dict:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
