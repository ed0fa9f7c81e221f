"""A job through all services as real processes: one trace, their metrics, their logs, the rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
import uuid
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shoal.otel
from shoal_gateway import traceparents
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from tests.support.collector import Collector
from tests.support.hosts import DEADLINE, Hosts
from tests.support.waiting import eventually

FILES = Path(__file__).parents[2] / "deploy" / "observability"
SERVICES = {"shoal-api", "shoal-registry", "shoal-scheduler", "shoal-appmanager"}

COMMAND = """
name = "tell"
version = "1.0"
flavor = "local"
command = ["{python}", "{app}/tell.py"]
outputs = ["traceparent"]
"""
FUNCTION = """
name = "told"
version = "1.0"
flavor = "local"
function = "told:traceparent"
outputs = ["result.json"]
"""


@pytest.fixture(scope="module")
def observed(zookeeper, tmp_path_factory):
    """All services, observed; a job of each kind has gone through them."""
    from shoal.directory import Directory

    root = tmp_path_factory.mktemp("observed")
    catalogue, apps = root / "catalogue", root / "hosts" / "host-1" / "apps"
    catalogue.mkdir()
    (catalogue / "tell.toml").write_text(COMMAND)
    (catalogue / "told.toml").write_text(FUNCTION)
    for name in ("tell", "told"):
        (apps / name).mkdir(parents=True)
    say = "import os\nopen('traceparent', 'w').write(os.environ['TRACEPARENT'])\n"
    (apps / "tell" / "tell.py").write_text(say)
    (apps / "told" / "told.py").write_text(
        "import os\ndef traceparent():\n    return os.environ['TRACEPARENT']\n"
    )
    chroot = f"{zookeeper.hosts}/test-{uuid.uuid4().hex[:12]}"
    spans = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    with Collector() as collector, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "SHOAL_METRICS": "127.0.0.1:0",
            "SHOAL_LOG_FORMAT": "json",
        }.items():
            patch.setenv(name, value)
        with (
            Directory(chroot, cache_dir=root / "cache") as plain,
            Hosts(chroot, root, plain) as hosts,
            shoal.otel.instrument(tracer_provider=tracers),
            Directory(chroot, cache_dir=root / "cache") as directory,
            directory.channel("api") as channel,
        ):
            hosts.start("scheduler", 1, "--poll", "0.1")
            hosts.start("api", 1, "--catalogue", str(catalogue))
            hosts.manager(1, lease=5.0)
            api = api_pb2_grpc.ApiStub(channel)
            jobs = {}
            for name in ("tell", "told"):
                spans.clear()
                request = api_pb2.SubmitRequest(
                    owner="ada", application=name, idempotency_key=str(uuid.uuid4())
                )
                job = api.Submit(request, timeout=DEADLINE).job
                (sent,) = [each for each in spans.get_finished_spans() if each.parent is None]
                jobs[name] = (job.id, f"{sent.context.trace_id:032x}")
                hosts.reaches(job.id, "SUCCEEDED")
            yield Observed(hosts, collector, plain, jobs)


class Observed:
    def __init__(self, hosts, collector, directory, jobs):
        self.hosts = hosts
        self.collector = collector
        self.directory = directory
        self.jobs = jobs

    def page(self, service):
        """What Prometheus reads of a service's one replica, found as it would find it."""
        (replica,) = self.directory.ready(service)
        url = f"http://{replica.metadata['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return answer.read().decode()

    def pages(self):
        return {name: self.page(name) for name in ("api", "registry", "scheduler", "appmanager")}


@pytest.mark.parametrize("kind", ["tell", "told"])
def test_one_trace_from_submit_to_result_through_all_services(observed, kind):
    job_id, trace_id = observed.jobs[kind]
    job = observed.hosts.job(job_id)
    assert traceparents.ids(job.trace_context)[0] == trace_id

    def whole():
        found = observed.collector.trace(trace_id)
        names = {span.name for span in found}
        return (
            {span.service for span in found} >= SERVICES
            and {"shoal.job.offer", "shoal.job.attempt"} <= names
            and any(name.startswith("Recv.") and name.endswith("/Report") for name in names)
        ) and found

    found = eventually(whole, DEADLINE, "the whole trace")
    by_id = {span.id: span for span in found}
    assert len(by_id) == len(found)
    # All but the caller's own, which it keeps to itself, hang together.
    top = {span.name for span in found if span.parent not in by_id}
    assert top == {"Recv.shoal.gateway.api.v1.Api/Submit"}
    (attempt,) = [span for span in found if span.name == "shoal.job.attempt"]
    assert attempt.facts["shoal.job"] == job_id
    assert attempt.facts["shoal.outcome"] == "succeeded"
    assert not attempt.failed
    assert attempt.nanoseconds > 0
    assert attempt.replica == "appmanager-1"
    offer = by_id[attempt.parent]
    assert (offer.name, offer.service) == ("shoal.job.offer", "shoal-scheduler")
    assert offer.facts["shoal.verdict"] == "STARTED"
    # The job's own process was told of its attempt, so that what it does can go on from there.
    name = "traceparent" if kind == "tell" else "result.json"
    told = observed.hosts.content(job, name).decode().strip().strip('"')
    assert traceparents.ids(told) == (trace_id, attempt.id)
    # Calls that the manager made for it, and the registry's part of them.
    for call in ("Begin" if kind == "tell" else "BeginMany", "Report"):
        method = f"shoal.gateway.registry.v1.Registry/{call}"
        (sent,) = [span for span in found if span.name == f"Sent.{method}"]
        assert sent.parent == attempt.id
        (tried,) = [span for span in found if span.parent == sent.id]
        (received,) = [span for span in found if span.parent == tried.id]
        assert received.service == "shoal-registry"
        assert tried.facts["shoal.replica"] == "registry-1" == received.replica


def test_every_service_has_a_page_for_prometheus(observed):
    pages = observed.pages()
    for service, page in pages.items():
        assert "# TYPE grpc_server_call_duration_seconds histogram" in page, service
        assert f'shoal_server_draining{{shoal_service="{service}"}} 0.0' in page
        assert f'service_name="shoal-{service}"' in page
    submitted = re.search(
        r"grpc_server_call_duration_seconds_count\{"
        r'grpc_method="shoal\.gateway\.api\.v1\.Api/Submit",grpc_status="OK"\} (\S+)',
        pages["api"],
    )
    assert float(submitted[1]) == 2.0
    assert 'shoal_jobs{shoal_state="SUCCEEDED"} 2.0' in eventually(
        lambda: (page := observed.page("registry")) and 'SUCCEEDED"} 2.0' in page and page,
        DEADLINE,
        "the count of jobs",
    )
    assert 'shoal_job_attempts_total{shoal_outcome="succeeded"} 2.0' in pages["appmanager"]
    assert 'shoal_scheduler_offers_total{shoal_outcome="started"} 2.0' in pages["scheduler"]
    assert 'shoal_directory_age_seconds{shoal_service="registry"} 0.0' in pages["scheduler"]


def test_metrics_go_to_the_collector_too(observed):
    assert eventually(
        lambda: (
            {(service, "grpc.server.call.duration") for service in SERVICES}
            <= observed.collector.metrics
        ),
        DEADLINE,
        "metrics of all services",
    )


def test_logs_are_json_with_replica_job_and_trace(observed):
    job_id, trace_id = observed.jobs["tell"]
    lines = [json.loads(line) for line in observed.hosts.log("appmanager-1").splitlines()]
    assert all(
        {"time", "level", "logger", "message", "service", "replica"} <= line.keys()
        for line in lines
    )
    assert {line["replica"] for line in lines} == {"appmanager-1"}
    (started,) = [
        line
        for line in lines
        if line["message"].startswith("started") and job_id in line["message"]
    ]
    assert (started["job"], started["attempt"], started["trace_id"]) == (job_id, 1, trace_id)
    assert re.fullmatch("[0-9a-f]{16}", started["span_id"])


def test_every_metric_of_the_dashboard_and_the_rules_is_exported(observed):
    exported = set()
    for page in observed.pages().values():
        for line in page.splitlines():
            if line and not line.startswith("#"):
                exported.add(re.match(r"[a-zA-Z_:][a-zA-Z0-9_:]*", line)[0])
    # What only comes with a failure; the unit tests make it come.
    exported |= {
        "grpc_lb_outlier_detection_ejections_enforced_total",
        "grpc_client_call_retries_sum",
        "grpc_client_call_retries_count",
    }
    used = {
        path.name: set(re.findall(r"\b(?:grpc|shoal)_[a-z_]+\b(?!=|\")", expression))
        for path in FILES.iterdir()
        for expression in [expressions(path)]
    }
    labels = {
        "grpc_method", "grpc_status", "grpc_target", "grpc_lb_locality", "shoal_service",
        "shoal_state", "shoal_status", "shoal_outcome", "shoal_flavor",
    }  # fmt: skip
    missing = {name: found - labels - exported for name, found in used.items()}
    assert {name: each for name, each in missing.items() if each} == {}
    assert sum(map(len, used.values())) > 20


def expressions(path):
    """All PromQL of a file."""
    if path.suffix == ".json":
        return "\n".join(_texts(json.loads(path.read_text()), ("expr",)))
    import yaml

    if path.suffix == ".yml" and "rules" in path.name:
        return "\n".join(_texts(yaml.safe_load(path.read_text()), ("expr",)))
    return ""


def _texts(node, keys):
    if isinstance(node, dict):
        for key, value in node.items():
            if key in keys and isinstance(value, str):
                yield value
            else:
                yield from _texts(value, keys)
    elif isinstance(node, list):
        for each in node:
            yield from _texts(each, keys)


def alerts():
    import yaml

    rules = yaml.safe_load((FILES / "rules.yml").read_text())
    return [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]


def test_the_rules_say_what_to_do():
    assert len(alerts()) >= 8
    for alert in alerts():
        assert {"summary", "description", "runbook"} <= alert["annotations"].keys(), alert["alert"]
        assert alert["labels"]["severity"] in ("page", "ticket")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules():
    done = subprocess.run(
        ["promtool", "check", "rules", str(FILES / "rules.yml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(("started", "fires"), [(None, True), ("7+0x40", True), ("0+1x40", False)])
def test_jobs_that_wait_are_told_of_also_where_no_scheduler_is(tmp_path, started, fires):
    series = [{"series": 'shoal_jobs{shoal_state="QUEUED"}', "values": "3+0x40"}]
    if started is not None:
        name = 'shoal_scheduler_offers_total{shoal_outcome="started"}'
        series.append({"series": name, "values": started})
    expected = [{"labels": "{}", "value": 3}] if fires else []
    (alert,) = [rule for rule in alerts() if rule["alert"] == "ShoalJobsWait"]
    case = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {"expr": alert["expr"], "eval_time": "30m", "exp_samples": expected}
                ],
            }
        ],
    }
    (tmp_path / "case.yml").write_text(json.dumps(case))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "case.yml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
