"""The way from OpenTelemetry's SDK to Prometheus: a page that is made when it is asked for.

``grpc.client.call.duration`` in seconds is ``grpc_client_call_duration_seconds``, a counter ends in
``_total``, as OpenTelemetry's specification says. Only seconds, milliseconds and bytes come into
names; its ``_ratio`` of gauges whose unit is "1" does not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from opentelemetry.sdk.metrics.export import (
    Histogram,
    Metric,
    MetricReader,
    MetricsData,
    Sum,
)
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes"}
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")


class Reader(MetricReader):
    """Holds what was collected last, for who asks for the page."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._found: MetricsData | None = None

    def read(self) -> MetricsData | None:
        """What is so now."""
        with self._lock:
            self._found = None
            self.collect()
            return self._found

    def _receive_metrics(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,  # noqa: ARG002 - the SDK's
        **_: Any,
    ) -> None:
        self._found = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing to do."""


class Page(Collector):
    """A reader's metrics as prometheus_client knows them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def describe(self) -> list[Family]:
        """Nothing, so that it is not read before somebody asks."""
        return []

    def collect(self) -> Iterator[Family]:
        """All metrics as they are now."""
        data = self._reader.read()
        for resource in data.resource_metrics if data is not None else ():
            about = {_name(key): str(value) for key, value in resource.resource.attributes.items()}
            yield InfoMetricFamily("target", "What is measured", value=about)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    family = _family(metric)
                    if family is not None:
                        yield family


def serve(reader: Reader, address: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serves the page at ``/metrics``; the port, and what ends it.

    Raises:
        OSError: the address can't be bound.
    """
    registry = CollectorRegistry()
    registry.register(Page(reader))
    server, thread = start_http_server(port, address, registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return int(server.server_port), end


def name_of(metric: Metric) -> str:
    """The name of a metric on the page, without a counter's ``_total``."""
    name = _name(metric.name)
    unit = _UNITS.get(metric.unit or "", "")
    return f"{name}_{unit}" if unit and not name.endswith(f"_{unit}") else name


def _family(metric: Metric) -> Family | None:
    name, said, data = name_of(metric), metric.description or metric.name, metric.data
    points: list[Any] = list(data.data_points)
    # All series of a family have the same labels; what one lacks is empty.
    keys = sorted({key for point in points for key in point.attributes or {}})
    labels = [_name(key) for key in keys]
    if isinstance(data, Histogram):
        spread = HistogramMetricFamily(name, said, labels=labels)
        for histogram in data.data_points:
            buckets, below = [], 0
            for bound, count in zip(
                (*histogram.explicit_bounds, float("inf")), histogram.bucket_counts, strict=True
            ):
                below += count
                written = floatToGoString(bound)  # type: ignore[no-untyped-call] # it has no types
                buckets.append((written, below))
            spread.add_metric(_values(keys, histogram.attributes), buckets, histogram.sum)
        return spread
    family: CounterMetricFamily | GaugeMetricFamily
    if isinstance(data, Sum) and data.is_monotonic:
        family = CounterMetricFamily(name, said, labels=labels)
    else:
        family = GaugeMetricFamily(name, said, labels=labels)
    for number in points:
        value = getattr(number, "value", None)
        if value is None:
            # Exponential histograms are not on this page.
            return None
        family.add_metric(_values(keys, number.attributes), value)
    return family


def _values(keys: list[str], attributes: Mapping[str, Any] | None) -> list[str]:
    found = attributes or {}
    return [str(found.get(key, "")) for key in keys]


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text)
