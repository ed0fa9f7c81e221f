"""The tables as OpenTelemetry's SDK knows metrics, and the way into its readers."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from shoal.otel import tables
from shoal.otel.tables import Tables

logger = logging.getLogger(__name__)

SCOPE = InstrumentationScope("shoal")


def metrics(of: Tables) -> list[Metric]:
    """All that the tables hold now; what was never measured is left out."""
    now = time.time_ns()
    found = [_measured(each, now) for each in of.instruments]
    found += [_looked_at(each, now) for each in of.gauges]
    return [each for each in found if each is not None]


def _measured(instrument: tables.Instrument, now: int) -> Metric | None:
    series = instrument.settled()
    if not series:
        return None
    data: Sum | Histogram
    if instrument.bounds:
        data = Histogram(
            data_points=[
                HistogramDataPoint(
                    attributes=dict(each.labels),
                    start_time_unix_nano=instrument.since,
                    time_unix_nano=now,
                    count=each.count,
                    sum=each.total,
                    bucket_counts=each.buckets,
                    explicit_bounds=instrument.bounds,
                    min=each.least,
                    max=each.largest,
                )
                for each in series
                if each.count
            ],
            aggregation_temporality=AggregationTemporality.CUMULATIVE,
        )
    else:
        data = _sum(
            [
                NumberDataPoint(dict(each.labels), instrument.since, now, int(each.total))
                for each in series
            ]
        )
    return Metric(instrument.name, instrument.description, instrument.unit, data)


def _looked_at(gauge: tables.Gauge, now: int) -> Metric | None:
    try:
        points = [
            NumberDataPoint(
                dict(zip(gauge.names, values, strict=True)),
                gauge.since if gauge.grows else 0,
                now,
                number,
            )
            for values, number in gauge.look()
        ]
    except Exception:
        # What can't be looked at must not keep all else from being read.
        logger.exception("%s can't be read", gauge.name)
        return None
    if not points:
        return None
    data = _sum(points) if gauge.grows else Gauge(points)
    return Metric(gauge.name, gauge.description, gauge.unit, data)


def _sum(points: list[NumberDataPoint]) -> Sum:
    return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)


# What the readers of a provider read beside it.
_joined: weakref.WeakKeyDictionary[MeterProvider, list[Tables]] = weakref.WeakKeyDictionary()


def join(provider: Any, of: Tables) -> Callable[[], None]:
    """Has a provider's readers read the tables too; returns what undoes it.

    The SDK has nothing like the specification's MetricProducer yet. `_receive_metrics` is where its
    readers are meant to be extended.

    Raises:
        TypeError: it is not the SDK's provider, and has no readers.
    """
    readers = getattr(provider, "_metric_readers", None)
    if not isinstance(provider, MeterProvider) or readers is None:
        raise TypeError(
            f"meter_provider must be opentelemetry.sdk.metrics.MeterProvider, not {provider!r}:"
            " Shoal's metrics are handed to its readers"
        )
    joined = _joined.get(provider)
    if joined is None:
        joined = _joined[provider] = []
        _extend(provider, readers, joined)
    joined.append(of)
    return partial(joined.remove, of)


def _extend(provider: MeterProvider, readers: Iterable[MetricReader], also: list[Tables]) -> None:
    """Once for each provider; without tables its readers read what they did."""

    def up(_options: CallbackOptions) -> list[Observation]:
        return [Observation(1)] if also else []

    # One of the provider's own, for a reader is not told of a provider that has nothing.
    provider.get_meter("shoal").create_observable_gauge(
        "shoal.up", [up], description="1 while the process is observed"
    )
    for reader in readers:
        receive = reader._receive_metrics  # noqa: SLF001 - documented, for those who extend readers

        def receive_all(
            data: MetricsData,
            timeout_millis: float = 10_000,
            *,
            receive: Any = receive,
            **rest: Any,
        ) -> None:
            receive(with_tables(data, also), timeout_millis, **rest)

        # The one place between a provider and its reader: see above.
        reader._receive_metrics = receive_all  # type: ignore[assignment,method-assign]  # noqa: SLF001


def with_tables(data: MetricsData, also: Sequence[Tables]) -> MetricsData:
    """What the SDK has collected, and what the tables hold, under the same resource."""
    ours = [ScopeMetrics(SCOPE, metrics(each), "") for each in also]
    if not ours:
        return data
    if not data.resource_metrics:
        return MetricsData([ResourceMetrics(Resource.get_empty(), ours, "")])
    first, *others = data.resource_metrics
    whole = ResourceMetrics(first.resource, [*first.scope_metrics, *ours], first.schema_url)
    return MetricsData([whole, *others])
