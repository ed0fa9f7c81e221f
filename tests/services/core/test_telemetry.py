"""What is asked of metrics, traces and logs, and what is said when that can't be had."""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import subprocess
import sys

import pytest

from shoal_gateway import jobtraces, telemetry, traceparents
from shoal_gateway.jsonlogs import JsonFormatter
from tests.support.collector import Collector

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_nothing_is_wanted_unless_asked_for():
    assert not telemetry.Wanted.of(None, {})
    assert not telemetry.Wanted.of(None, {"OTEL_TRACES_EXPORTER": "none"})
    disabled = {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}
    assert not telemetry.Wanted.of(None, disabled)


def test_the_standard_variables_are_heard():
    both = telemetry.Wanted.of(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"})
    assert (both.metrics, both.traces) == ("otlp", "otlp")
    traces = telemetry.Wanted.of(None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"})
    assert (traces.metrics, traces.traces) == ("", "otlp")
    with pytest.raises(telemetry.TelemetryError, match="OTEL_TRACES_EXPORTER=zipkin"):
        telemetry.Wanted.of(None, {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_addresses():
    assert telemetry.address("127.0.2.1:9464") == ("127.0.2.1", 9464)
    assert telemetry.address("9464") == ("127.0.0.1", 9464)
    assert telemetry.address("[::1]:0") == ("::1", 0)
    for wrong in ("", "host", "host:", "1:99999", "1:-1"):
        with pytest.raises(argparse.ArgumentTypeError, match="ADDR:PORT"):
            telemetry.address(wrong)


def test_a_page_at_every_address_is_announced_at_the_replicas_own():
    assert telemetry.announced("0.0.0.0:9464", "10.0.0.5") == "10.0.0.5:9464"
    assert telemetry.announced("[::]:9464", "fd00::5") == "[fd00::5]:9464"
    assert telemetry.announced("[::1]:9464", "10.0.0.5") == "[::1]:9464"
    assert telemetry.announced("127.0.0.2:9464", "10.0.0.5") == "127.0.0.2:9464"


def test_an_address_that_is_taken_ends_the_service_with_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "shoal_gateway.scheduler"),
                *("--zookeeper", "127.0.0.1:1/x", "--metrics", f"127.0.0.1:{port}"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"--metrics 127.0.0.1:{port} can't be bound" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_measured_last_goes_out_at_the_end(monkeypatch):
    # So long that only the end sends anything.
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        wanted = telemetry.Wanted(metrics="otlp", traces="otlp")
        with telemetry.observing(wanted, {"service.name": "s"}) as here:
            here.count("shoal.job.attempts", "succeeded")
            span = jobtraces.begin(PARENT)
            jobtraces.end("shoal.job.attempt", span)
    assert ("s", "shoal.job.attempts") in collector.metrics
    assert [each.name for each in collector.spans] == ["shoal.job.attempt"]
    assert jobtraces.spans is None


def test_what_is_imported_is_imported_before_there_are_threads():
    code = """
import os, sys, threading
from shoal_gateway import telemetry
begin, known = threading.Thread.start, None
def start(thread):
    global known
    # But for those in which OpenTelemetry looks at its resource while it is imported.
    if known is None and not thread.name.startswith("ThreadPoolExecutor"):
        known = {*sys.modules}
    begin(thread)
threading.Thread.start = start
with telemetry.observing(telemetry.Wanted(("127.0.0.1", 0), "otlp", "otlp"), {}):
    late = {*sys.modules} - known
    print([each for each in late if each.startswith(("opentelemetry", "shoal", "prometheus"))])
    sys.stdout.flush()
    # Nobody listens; the end would try for seconds.
    os._exit(0)
"""
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_without_it_gauges_and_counts_are_nothing():
    here = telemetry.here()
    here.gauge("x", "1", "x", (), lambda: 1 / 0)
    here.count("shoal.job.attempts", "succeeded")
    assert here.page == ""


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "no",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        PARENT.upper(),
        PARENT + "-x",
        "01" + PARENT[2:],
    ],
)
def test_a_traceparent_that_cannot_be_read_is_none(wrong):
    assert traceparents.valid(wrong) == ""
    assert traceparents.sent_with([("traceparent", wrong)]) == ""


def test_without_traces_a_job_keeps_what_its_caller_sent():
    assert jobtraces.submitted([("a", "b"), ("traceparent", PARENT)]) == PARENT
    span = jobtraces.begin(PARENT)
    assert (span.own, span.parent) == (PARENT, PARENT)
    assert jobtraces.begin("") == jobtraces.NONE
    jobtraces.end("shoal.job.attempt", span, job="1")


def test_a_line_of_json_says_what_is_known(caplog):
    formatter = JsonFormatter({"service": "registry", "replica": "r-1"})

    def line(level=logging.INFO, **more):
        record = logging.LogRecord("shoal.x", level, __file__, 1, "hé\n%s", ("you",), None, **more)
        text = formatter.format(record)
        assert "\n" not in text
        return json.loads(text)

    plain = line()
    assert plain["message"] == "hé\nyou"
    assert (plain["service"], plain["replica"], plain["level"]) == ("registry", "r-1", "INFO")
    assert plain["time"].endswith("Z")
    assert not {"job", "trace_id"} & plain.keys()
    with jobtraces.within(jobtraces.begin(PARENT), "job-1", 2):
        known = line()
    assert (known["job"], known["attempt"]) == ("job-1", 2)
    assert known["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert known["span_id"] == "b7ad6b7169203331"
