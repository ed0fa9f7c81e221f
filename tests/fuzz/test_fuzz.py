"""Every method of every service takes whatever comes; nothing crashes, nothing inside is told.

The services are real processes of a small fleet; the calls are raw bytes over plain gRPC. A short
run by default; SHOAL_FUZZ_SECONDS is how long all of it may take (`make fuzz`: minutes).
"""

from __future__ import annotations

import os
import re
import time

import grpc
import pytest
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, Phase, given, settings

from shoal_gateway.fleet import Fleet
from shoal_protos.gateway.api.v1 import accounts_pb2, api_pb2
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2
from shoal_protos.gateway.registry.v1 import accounts_pb2 as stored_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2
from shoal_protos.v1 import replica_pb2
from tests.fuzz.messages import requests

COMMON = (replica_pb2, health_pb2, reflection_pb2)
# A replica of the fleet, and the files whose services it serves.
SERVED = {
    "api-1": (api_pb2, accounts_pb2),
    "registry-1": (registry_pb2, stored_pb2),
    "scheduler-1": (scheduler_pb2,),
    "local-1": (appmanager_pb2,),
}
METHODS = {
    f"{replica}{method.full_name.replace('.', '/')}": (replica, method)
    for replica, files in SERVED.items()
    for file in (*files, *COMMON)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    # Newer than the oldest health servicer that we take; where it is not there, grpc says so.
    if method.full_name != "grpc.health.v1.Health.List"
}
SECONDS = float(os.environ.get("SHOAL_FUZZ_SECONDS", "0"))
# In a short run each method gets so many requests.
EXAMPLES = 25
# Most that a stream is listened to, and a call is waited for, seconds.
STREAM, CALL = 0.05, 20.0
# Answers that a caller may get. Of the rest, UNKNOWN and INTERNAL are defects; DATA_LOSS would be
# of stored content, and nothing here spoils any.
CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
}
INSIDE = re.compile(
    r"Traceback|File \"|\.py\b|line \d+, in|0x[0-9a-f]{6}|<class|object at"
    r"|sqlite|sqlalchemy|psycopg|SELECT .* FROM|INSERT INTO|UPDATE .* SET"
    r"|Errno|site-packages",
    re.IGNORECASE,
)


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path / "fleet")
    # With users, so that what only administrators may is tried as well.
    made.up(hosts=1, users="required")
    yield made
    made.down()


class Wire:
    """Plain channels to the fleet's replicas."""

    def __init__(self, fleet):
        self._token = fleet.layout.token.read_text().strip()
        self._channels = {}
        with fleet.directory_of() as directory:
            for service in ("api", "registry", "scheduler", "appmanager"):
                watch = directory.watch(service)
                watch.wait_known(20.0)
                for each in watch.replicas():
                    self._channels[each.id] = grpc.insecure_channel(each.target)

    def close(self):
        for each in self._channels.values():
            each.close()

    def __call__(self, replica, method, data, listen=STREAM):
        """The code and the details of the answer; OK where we left a stream that went well."""
        made = getattr(self._channels[replica], _kind(method))(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda each: each,
            response_deserializer=lambda each: each,
        )
        metadata = [("authorization", f"Bearer {self._token}")]
        request = iter([data]) if method.client_streaming else data
        try:
            if not method.server_streaming:
                made(request, timeout=CALL, metadata=metadata)
                return grpc.StatusCode.OK, ""
            answers = made(request, timeout=listen, metadata=metadata)
            for at, _ in enumerate(answers):
                if at == 3:
                    answers.cancel()
                    break
        except grpc.RpcError as error:
            if method.server_streaming and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return grpc.StatusCode.OK, ""
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""

    def unknown(self, path):
        """The codes of a method that is not there, of all replicas."""
        for each in self._channels.values():
            call = each.unary_unary(path, lambda data: data, lambda data: data)
            try:
                call(b"", timeout=CALL)
            except grpc.RpcError as error:
                yield error.code()

    def job(self, flavor):
        """The id of a new job."""
        spec = {"application": "nap@1.0", "flavor": flavor, "command": ["/bin/true"]}
        request = registry_pb2.CreateJobRequest(owner="ada", idempotency_key=flavor, spec=spec)
        call = self._channels["registry-1"].unary_unary(
            "/shoal.gateway.registry.v1.Registry/CreateJob",
            request_serializer=lambda each: each.SerializeToString(),
            response_deserializer=registry_pb2.CreateJobResponse.FromString,
        )
        return call(request, timeout=CALL).job.id


def _kind(method):
    requests_ = "stream" if method.client_streaming else "unary"
    return f"{requests_}_{'stream' if method.server_streaming else 'unary'}"


@pytest.fixture
def wire(fleet):
    made = Wire(fleet)
    yield made
    made.close()


def judge(code, details):
    """What is wrong with an answer; empty when nothing is."""
    if code not in CODES:
        return f"{code.name}: {details}"
    # What is quoted came from the caller.
    told = INSIDE.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", details))
    return f"{code.name} tells {told[0]!r}: {details}" if told else ""


def fuzz(wire, replica, method, hints):
    """What was found in one method."""
    until = time.monotonic() + SECONDS / len(METHODS)
    found = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=not SECONDS,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(method.input_type, hints))
    def run(data):
        if not found:
            wrong = judge(*wire(replica, method, data))
            if wrong:
                found.append(f"{method.full_name}({data!r}) {wrong}")

    run()
    # With time left, others: only a short run makes the same ones each time.
    while not found and time.monotonic() < until:
        run()
    return found


def too_large(wire, replica, method):
    code, details = wire(replica, method, b"\x0a" + b"\xff" * (5 << 20), listen=CALL)
    if code is not grpc.StatusCode.RESOURCE_EXHAUSTED or judge(code, details):
        yield f"{method.full_name}(5 MiB) {code.name}: {details}"


def no_message(wire, replica, method):
    code, details = wire(replica, method, b"\x0a\xff\xff\xff", listen=CALL)
    if code is not grpc.StatusCode.INVALID_ARGUMENT or "bytes of the request" not in details:
        yield f"{method.full_name}(no message) {code.name}: {details}"


@pytest.mark.timeout(2.0 * SECONDS + 180.0)
def test_whatever_comes_is_answered_and_nothing_inside_is_told(fleet, wire):
    before = {name: fleet.state.replicas[name].process for name in SERVED}
    hints = (wire.job("nowhere"), wire.job("local"))
    found = []
    for replica, method in METHODS.values():
        for tried in (too_large, no_message):
            found += tried(wire, replica, method)
        found += fuzz(wire, replica, method, hints)
    for path in ("/shoal.gateway.api.v1.Api/Drop", "/x/y", "/"):
        codes = list(wire.unknown(path))
        assert codes == [grpc.StatusCode.UNIMPLEMENTED] * len(codes)
        assert len(codes) >= len(SERVED)
    for name, process in before.items():
        if not fleet.running(name) or fleet.state.replicas[name].process != process:
            found.append(f"{name} has ended")
    for log in fleet.layout.logs():
        # A defect that was answered politely stands there.
        text = log.read_text(errors="replace")
        for word in ("incident", "Traceback"):
            if word in text:
                found.append(f"{log.name}: {text[text.index(word) :][:3000]}")
    assert not found, "\n\n".join(found)


def test_requests_are_of_all_kinds():
    """What is sent is worth sending: proper messages with content, and bytes that are none."""
    kinds = {"proper": 0, "none": 0, "full": 0}

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(requests(api_pb2.SubmitRequest.DESCRIPTOR))
    def run(data):
        try:
            made = message_factory.GetMessageClass(api_pb2.SubmitRequest.DESCRIPTOR).FromString(
                data
            )
        except Exception:  # noqa: BLE001 - whatever protobuf makes of it
            kinds["none"] += 1
            return
        kinds["proper"] += 1
        kinds["full"] += len(made.ListFields()) > 3

    run()
    assert all(count > 10 for count in kinds.values()), kinds
