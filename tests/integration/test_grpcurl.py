"""The real grpcurl against every service of a running fleet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GRPCURL = Path(sys.executable).with_name("grpcurl")

SERVICES = {
    "api": ("shoal.gateway.api.v1.Api", "Applications", {}),
    "registry": ("shoal.gateway.registry.v1.Registry", "ListJobs", {"page_size": 3}),
    "scheduler": ("shoal.gateway.scheduler.v1.Scheduler", "Status", {}),
    "appmanager": ("shoal.gateway.appmanager.v1.AppManager", "Status", {}),
}


def grpcurl(*arguments: str) -> str:
    done = subprocess.run(
        [str(GRPCURL), "-plaintext", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_answers_list_describe_call_and_health(fleet, service):
    target = fleet.target_of(service)
    full_name, method, request = SERVICES[service]

    listed = grpcurl(target, "list").split()
    assert full_name in listed
    assert "grpc.health.v1.Health" in listed
    assert "shoal.v1.Replica" in listed

    described = grpcurl(target, "describe", full_name)
    assert f"rpc {method}" in described

    answer = json.loads(grpcurl("-d", json.dumps(request), target, f"{full_name}/{method}"))
    assert isinstance(answer, dict)

    health = json.loads(
        grpcurl("-d", json.dumps({"service": full_name}), target, "grpc.health.v1.Health/Check")
    )
    assert health == {"status": "SERVING"}


def test_bad_input_reaches_grpcurl_with_the_field_that_is_wrong(fleet):
    target = fleet.target_of("api")
    done = subprocess.run(
        [str(GRPCURL), "-plaintext", "-d", "{}", target, "shoal.gateway.api.v1.Api/Submit"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "InvalidArgument" in done.stderr
    assert "owner" in done.stderr or "idempotency_key" in done.stderr
