"""Who reads: what is added up meanwhile, who still observes, and the page for Prometheus."""

from __future__ import annotations

import re
import threading
import urllib.request

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import shoal
import shoal.otel
from shoal import observing
from shoal.otel import prometheus, tables
from shoal.otel.measures import Measures
from shoal.otel.tables import Series, Tables
from shoal.otel.watching import OK, UNKNOWN, MethodWatch
from shoal.testing import FixedDirectory


def names(reader):
    data = reader.get_metrics_data()
    return {
        metric.name
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_a_reader_sees_sums_and_buckets_of_the_same_values():
    series, values = Series((), (1.0, 2.0)), 20 * tables.MOST_WAITING

    def write():
        for _ in range(values):
            series.add(1.5)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        point = series.settle()
        assert point.buckets == (0, point.count, 0)
        assert point.total == 1.5 * point.count
    assert series.settle().count == values


def test_who_writes_waits_for_no_reader():
    series = Series((), ())
    with series._adding:
        for _ in range(tables.MOST_WAITING + 10):
            series.add(1.0)
    assert series.settle().count == tables.MOST_WAITING + 10


def test_observers_leave_in_any_order():
    readers = [InMemoryMetricReader() for _ in range(2)]
    first, second = (shoal.otel.instrument(MeterProvider([each])) for each in readers)
    first.close()
    assert observing.current() is second._observer
    second.close()
    second.close()
    assert observing.current() is None


def test_an_observer_that_has_left_says_no_longer_that_it_is_up():
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    first, second = shoal.otel.instrument(meters), shoal.otel.instrument(meters)
    assert "shoal.up" in names(reader)
    first.tables.sum("one", "1", "One").of().add(1)
    second.tables.sum("two", "1", "Two").of().add(1)
    assert {"one", "two"} <= names(reader)
    first.close()
    assert {"one", "two", "shoal.up"} & names(reader) == {"two", "shoal.up"}
    second.close()
    assert names(reader) == set()
    with shoal.otel.instrument(meters):
        assert "shoal.up" in names(reader)
    meters.shutdown()


def test_the_page_has_each_series_once_and_bounds_as_prometheus_writes_them():
    reader = prometheus.Reader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    port, end = prometheus.serve(reader, "127.0.0.1", 0)
    try:
        with shoal.otel.instrument(meters) as seen, FixedDirectory({}) as directory:
            servers = [shoal.Server("twice") for _ in range(2)]
            for each in servers:
                each.serve(directory)
            sizes = seen.tables.spread("sizes", "By", "Sizes", (0.5, 1.0, 4.0**16))
            sizes.of().add(4.0**16)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                page = answer.read().decode()
            for each in servers:
                each.stop(0).wait(30)
    finally:
        end()
        meters.shutdown()
    bounds = re.findall(r'^sizes_bytes_bucket\{le="([^"]+)"\} (\S+)$', page, re.MULTILINE)
    assert bounds == [("0.5", "0.0"), ("1.0", "0.0"), ("4.294967296e+09", "1.0"), ("+Inf", "1.0")]
    series = [line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")]
    assert 'shoal_server_draining{shoal_service="twice"}' in series
    assert len(series) == len(set(series))


def test_a_stream_whose_end_is_heard_of_late_was_not_hedged():
    def told(*, hedged):
        measures = Measures(Tables())
        call = MethodWatch(measures, None, "t", "m", hedged=hedged).begin()
        call.sending()
        call.sending()
        call.sent(UNKNOWN)
        call.sent(OK)
        call.end(OK)
        return {
            name: sum(point.total for point in getattr(measures, name).settled())
            for name in ("hedges", "retries")
        }

    assert told(hedged=True) == {"hedges": 1, "retries": 0}
    assert told(hedged=False) == {"hedges": 0, "retries": 1}
