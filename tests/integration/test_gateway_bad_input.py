"""Bad input to every call of the api, the registry and the scheduler."""

from __future__ import annotations

import uuid

import grpc
import pytest
from google.protobuf import duration_pb2

from shoal_protos.gateway.api.v1 import api_pb2 as api
from shoal_protos.gateway.model.v1 import job_pb2 as model
from shoal_protos.gateway.registry.v1 import registry_pb2 as registry
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2 as scheduler
from tests.support import stack

API, REGISTRY, SCHEDULER = (
    "shoal.gateway.api.v1.Api",
    "shoal.gateway.registry.v1.Registry",
    "shoal.gateway.scheduler.v1.Scheduler",
)
SERVICES = {
    "api": api.DESCRIPTOR.services_by_name["Api"],
    "registry": registry.DESCRIPTOR.services_by_name["Registry"],
    "scheduler": scheduler.DESCRIPTOR.services_by_name["Scheduler"],
}
ID = str(uuid.uuid4())
SECOND = duration_pb2.Duration(seconds=1)
CLAIM = registry.Claim(job_id=ID, fence=1)
NEGATIVE = duration_pb2.Duration(seconds=-1)


def ref(**changes):
    stored = model.ObjectRef(key="uploads/x", sha256="a" * 64, size=1)
    return model.FileRef(**{"name": "x", "object": stored, **changes})


def spec(**changes):
    fields = {"application": "nap@1", "flavor": "local", "command": ["nap"], **changes}
    return model.JobSpec(**fields)


def create(**changes):
    fields = {"owner": "ada", "idempotency_key": "k", "spec": spec(), **changes}
    return registry.CreateJobRequest(**fields)


def begin(**changes):
    fields = {
        "claim": CLAIM,
        "attempt": 1,
        "runner_id": ID,
        "manager_id": "appmanager-1",
        "lease": SECOND,
    }
    return registry.BeginRequest(**{**fields, **changes})


def begin_many(**changes):
    fields = {"claim": CLAIM, "attempt": 1, "runner_id": ID}
    item = registry.BeginManyRequest.Item(**{**fields, **changes})
    return registry.BeginManyRequest(items=[item], manager_id="appmanager-1", lease=SECOND)


def changed(request, **changes):
    copy = type(request)()
    copy.CopyFrom(request)
    for name, value in changes.items():
        copy.ClearField(name)
        copy.MergeFrom(type(request)(**{name: value}))
    return copy


def report(**changes):
    fields = {"claim": CLAIM, "runner_id": ID, "outcome": registry.ReportRequest.OUTCOME_FAILED}
    return registry.ReportRequest(items=[registry.ReportRequest.Item(**{**fields, **changes})])


def succeeded(**changes):
    manifest = model.Manifest(**{"attempt": 1, "runner_id": ID, **changes})
    return report(outcome=registry.ReportRequest.OUTCOME_SUCCEEDED, manifest=manifest)


def submit(**changes):
    fields = {"owner": "ada", "idempotency_key": "k", "application": "nap", **changes}
    return api.SubmitRequest(**fields)


def header(sha256=""):
    return api.UploadRequest(header=api.UploadRequest.Header(sha256=sha256))


# Method: requests (lists for request streams), each with the field that the answer must name.
CASES = {
    f"{API}/Applications": [],
    f"{API}/Upload": [
        ([], "header"),
        ([api.UploadRequest()], "header"),
        ([api.UploadRequest(chunk=b"x")], "header"),
        ([header("ABC")], "header.sha256"),
        ([header("a" * 64), api.UploadRequest(chunk=b"x")], "header.sha256"),
        ([header(), header()], "part"),
        ([header(), api.UploadRequest(chunk=b"x" * (1024 * 1024 + 1))], "chunk"),
    ],
    f"{API}/Submit": [
        (api.SubmitRequest(), "owner"),
        (submit(idempotency_key=""), "idempotency_key"),
        (submit(idempotency_key="k" * 129), "idempotency_key"),
        (submit(application=""), "application"),
        (submit(parameters={"seconds": "soon"}), "parameters[seconds]"),
        (submit(inputs=[ref()]), "inputs[0].name"),
        (submit(max_attempts=-1), "max_attempts"),
        (submit(start_within=NEGATIVE), "start_within"),
    ],
    f"{API}/SubmitMany": [
        (api.SubmitManyRequest(), "requests"),
        (api.SubmitManyRequest(requests=[submit()] * 1001), "requests"),
        (api.SubmitManyRequest(requests=[submit(), submit()]), "requests[1].idempotency_key"),
        (api.SubmitManyRequest(requests=[submit(), submit(owner="")]), "requests[1].owner"),
        (
            api.SubmitManyRequest(requests=[submit(parameters={"seconds": "soon"})]),
            "requests[0].parameters[seconds]",
        ),
    ],
    f"{API}/Get": [(api.GetRequest(), "id"), (api.GetRequest(id="7"), "id")],
    f"{API}/List": [
        (api.ListRequest(page_size=-1), "page_size"),
        (api.ListRequest(page_size=1001), "page_size"),
        (api.ListRequest(states=[0]), "states[0]"),
        (api.ListRequest(states=[99]), "states[0]"),
        (api.ListRequest(page_token="x"), "page_token"),
        (api.ListRequest(owner="x" * 129), "owner"),
    ],
    f"{API}/Watch": [
        (api.WatchRequest(job_id="7"), "job_id"),
        (api.WatchRequest(after=-2), "after"),
        (api.WatchRequest(states=[0]), "states[0]"),
        (api.WatchRequest(states=[5, 99]), "states[1]"),
    ],
    f"{API}/Cancel": [
        (api.CancelRequest(), "id"),
        (api.CancelRequest(id=ID, reason="x" * 5000), "reason"),
    ],
    f"{API}/Replay": [(api.ReplayRequest(), "id"), (api.ReplayRequest(id="7"), "id")],
    f"{API}/Logs": [
        (api.LogsRequest(stream=1), "job_id"),
        (api.LogsRequest(job_id=ID), "stream"),
        (api.LogsRequest(job_id=ID, stream=9), "stream"),
        (api.LogsRequest(job_id=ID, stream=1, offset=-1), "offset"),
        (api.LogsRequest(job_id=ID, stream=1, attempt=-1), "attempt"),
    ],
    f"{API}/Outputs": [
        (api.OutputsRequest(), "job_id"),
        (api.OutputsRequest(job_id="x"), "job_id"),
    ],
    f"{API}/Download": [
        (api.DownloadRequest(name="x"), "job_id"),
        (api.DownloadRequest(job_id=ID), "name"),
        (api.DownloadRequest(job_id=ID, name="../x"), "name"),
        (api.DownloadRequest(job_id=ID, name="/etc/passwd"), "name"),
    ],
    f"{REGISTRY}/CreateJob": [
        (create(owner=""), "owner"),
        (create(owner="a\0b"), "owner"),
        (create(idempotency_key=""), "idempotency_key"),
        (create(fingerprint="x" * 129), "fingerprint"),
        (create(spec=None), "spec"),
        (create(spec=spec(application="")), "spec.application"),
        (create(spec=spec(flavor="")), "spec.flavor"),
        (create(spec=spec(flavor="a/b")), "spec.flavor"),
        (create(spec=spec(command=[])), "spec.command"),
        (create(spec=spec(command=[""])), "spec.command[0]"),
        (create(spec=spec(command=["a\0"])), "spec.command[0]"),
        (create(spec=spec(inputs=[ref(name="..")])), "spec.inputs[0].name"),
        (create(spec=spec(inputs=[ref(), ref()])), "spec.inputs[1]"),
        (create(spec=spec(outputs=["a", "/b"])), "spec.outputs[1]"),
        (create(spec=spec(max_attempts=-1)), "spec.max_attempts"),
        (create(spec=spec(max_failures=-1)), "spec.max_failures"),
        (create(spec=spec(retryable_exit_codes=[0])), "spec.retryable_exit_codes[0]"),
        (create(spec=spec(resources={"wall_seconds": -1})), "spec.resources.wall_seconds"),
        (
            create(spec=spec(resources={"wall_seconds": float("nan")})),
            "spec.resources.wall_seconds",
        ),
        (create(spec=spec(resources={"memory_mib": -1})), "spec.resources.memory_mib"),
        (create(spec=spec(parameters={"x": "x" * 300_000})), "spec"),
    ],
    f"{REGISTRY}/CreateJobs": [
        (registry.CreateJobsRequest(), "jobs"),
        (registry.CreateJobsRequest(jobs=[create()] * 1001), "jobs"),
        (registry.CreateJobsRequest(jobs=[create(), create(owner="")]), "jobs[1].owner"),
        (
            registry.CreateJobsRequest(jobs=[create(spec=spec(function="f"))]),
            "jobs[0].spec.function",
        ),
        (
            registry.CreateJobsRequest(jobs=[create(spec=spec(function="m:f"))]),
            "jobs[0].spec.command",
        ),
    ],
    f"{REGISTRY}/GetJob": [
        (registry.GetJobRequest(), "id"),
        (registry.GetJobRequest(id="7"), "id"),
    ],
    f"{REGISTRY}/ListJobs": [
        (registry.ListJobsRequest(page_size=-1), "page_size"),
        (registry.ListJobsRequest(states=[99]), "states[0]"),
        (registry.ListJobsRequest(page_token="-1"), "page_token"),
        (registry.ListJobsRequest(page_token="9" * 30), "page_token"),
    ],
    f"{REGISTRY}/CancelJob": [
        (registry.CancelJobRequest(), "id"),
        (registry.CancelJobRequest(id=ID, reason="x" * 5000), "reason"),
    ],
    f"{REGISTRY}/ReplayJob": [(registry.ReplayJobRequest(), "id")],
    f"{REGISTRY}/Lease": [
        (registry.LeaseRequest(max_jobs=1, lease=SECOND), "scheduler_id"),
        (registry.LeaseRequest(scheduler_id="s", lease=SECOND), "max_jobs"),
        (registry.LeaseRequest(scheduler_id="s", max_jobs=1001, lease=SECOND), "max_jobs"),
        (registry.LeaseRequest(scheduler_id="s", max_jobs=1), "lease"),
        (registry.LeaseRequest(scheduler_id="s", max_jobs=1, lease=NEGATIVE), "lease"),
        (
            registry.LeaseRequest(scheduler_id="s", max_jobs=1, lease=SECOND, flavors=["x", ""]),
            "flavors[1]",
        ),
    ],
    f"{REGISTRY}/Release": [
        (registry.ReleaseRequest(), "claims"),
        (registry.ReleaseRequest(claims=[registry.Claim(fence=1)]), "claims[0].job_id"),
        (registry.ReleaseRequest(claims=[registry.Claim(job_id=ID)]), "claims[0].fence"),
        (registry.ReleaseRequest(claims=[CLAIM], reason="x" * 5000), "reason"),
        (registry.ReleaseRequest(claims=[CLAIM] * 1001), "claims"),
    ],
    f"{REGISTRY}/Begin": [
        (begin(claim=None), "claim"),
        (begin(claim=registry.Claim(job_id="7", fence=1)), "claim.job_id"),
        (begin(claim=registry.Claim(job_id=ID, fence=-1)), "claim.fence"),
        (begin(attempt=0), "attempt"),
        (begin(runner_id="7"), "runner_id"),
        (begin(manager_id=""), "manager_id"),
        (begin(manager_version="v" * 129), "manager_version"),
        (begin(host="x" * 129), "host"),
        (begin(lease=None), "lease"),
        (begin(lease=duration_pb2.Duration(seconds=601)), "lease"),
    ],
    f"{REGISTRY}/BeginMany": [
        (changed(begin_many(), items=[]), "items"),
        (begin_many(claim=None), "items[0].claim"),
        (begin_many(claim=registry.Claim(job_id=ID)), "items[0].claim.fence"),
        (begin_many(attempt=0), "items[0].attempt"),
        (begin_many(runner_id="7"), "items[0].runner_id"),
        (changed(begin_many(), items=[*begin_many().items] * 2), "items[1]"),
        (changed(begin_many(), manager_id=""), "manager_id"),
        (changed(begin_many(), host="x" * 129), "host"),
        (changed(begin_many(), manager_version="v" * 129), "manager_version"),
        (changed(begin_many(), lease=NEGATIVE), "lease"),
    ],
    f"{REGISTRY}/Renew": [
        (registry.RenewRequest(lease=SECOND), "items"),
        (registry.RenewRequest(items=[{}], lease=SECOND), "items[0].claim"),
        (registry.RenewRequest(items=[{"claim": CLAIM}], lease=SECOND), "items[0].runner_id"),
        (registry.RenewRequest(items=[{"claim": CLAIM, "runner_id": ID}]), "lease"),
    ],
    f"{REGISTRY}/Report": [
        (registry.ReportRequest(), "items"),
        (report(claim=None), "items[0].claim"),
        (report(outcome=0), "items[0].outcome"),
        (report(outcome=99), "items[0].outcome"),
        (report(runner_id=""), "items[0].runner_id"),
        (report(exit_code=1000), "items[0].exit_code"),
        (report(reason="x" * 5000), "items[0].reason"),
        (report(outcome=registry.ReportRequest.OUTCOME_SUCCEEDED), "items[0].manifest"),
        (succeeded(attempt=0), "items[0].manifest.attempt"),
        (succeeded(runner_id=str(uuid.uuid4())), "items[0].manifest.runner_id"),
        (succeeded(files=[ref(name="")]), "items[0].manifest.files[0].name"),
        (succeeded(files=[ref(object=None)]), "items[0].manifest.files[0].object"),
        (succeeded(files=[ref(), ref()]), "items[0].manifest.files[1]"),
    ],
    f"{REGISTRY}/Changes": [
        (registry.ChangesRequest(after=-2), "after"),
        (registry.ChangesRequest(max_events=-1), "max_events"),
        (registry.ChangesRequest(max_events=10_001), "max_events"),
        (registry.ChangesRequest(wait=duration_pb2.Duration(seconds=11)), "wait"),
        (registry.ChangesRequest(wait=NEGATIVE), "wait"),
    ],
    f"{REGISTRY}/Summary": [(registry.SummaryRequest(owner="x" * 129), "owner")],
    f"{SCHEDULER}/Wake": [],
    f"{SCHEDULER}/Status": [],
}
# Their requests have no field that could be wrong; bytes that are no message they get all the same.
WITHOUT_FIELDS = {f"{API}/Applications", f"{SCHEDULER}/Wake", f"{SCHEDULER}/Status"}

METHODS = {
    f"{descriptor.full_name}/{method.name}": (service, method)
    for service, descriptor in SERVICES.items()
    for method in descriptor.methods
}


def test_every_method_has_cases():
    assert set(CASES) == set(METHODS)
    assert {name for name, cases in CASES.items() if not cases} == WITHOUT_FIELDS
    for name in WITHOUT_FIELDS:
        assert not METHODS[name][1].input_type.fields


async def answer(channel, name, request, serializer):
    """Sends one request, or a list of them, and reads the answer to its end."""
    method = METHODS[name][1]
    shapes = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    call = shapes[method.client_streaming, method.server_streaming](
        f"/{name}", request_serializer=serializer
    )
    if method.client_streaming and not isinstance(request, list):
        request = [request]
    answering = call(iter(request) if isinstance(request, list) else request, timeout=30)
    if method.server_streaming:
        return [response async for response in answering]
    return await answering


def serialized(message):
    return message.SerializeToString()


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name]])
async def test_a_wrong_field_is_named(tmp_path, name):
    async with stack.running(tmp_path) as gateway:
        channel = gateway.raw(METHODS[name][0])
        for request, field in CASES[name]:
            with pytest.raises(grpc.RpcError) as caught:
                await answer(channel, name, request, serialized)
            code, details = caught.value.code(), caught.value.details()
            assert code is grpc.StatusCode.INVALID_ARGUMENT, (request, code, details)
            assert details.startswith(f"{field}: "), (request, details)


async def test_bytes_that_are_no_message_end_the_call_and_nothing_else(tmp_path):
    async with stack.running(tmp_path) as gateway:
        for name, (service, _) in METHODS.items():
            channel = gateway.raw(service)
            with pytest.raises(grpc.RpcError) as caught:
                await answer(channel, name, b"\xff\xff\xff", lambda data: data)
            # grpc's own answer, for these are its servers; ours say INVALID_ARGUMENT.
            assert caught.value.code() in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, name
        assert (await gateway.api.Applications(api.ApplicationsRequest())).applications
        assert await gateway.scheduler.Status(scheduler.StatusRequest()) is not None


NOT_FOUND = {
    f"{API}/Get": api.GetRequest(id=ID),
    f"{API}/Submit": submit(application="nobody@9"),
    f"{API}/SubmitMany": api.SubmitManyRequest(
        requests=[submit(), submit(idempotency_key="l", application="nobody@9")]
    ),
    f"{API}/Watch": api.WatchRequest(job_id=ID),
    f"{API}/Cancel": api.CancelRequest(id=ID),
    f"{API}/Replay": api.ReplayRequest(id=ID),
    f"{API}/Logs": api.LogsRequest(job_id=ID, stream=1),
    f"{API}/Outputs": api.OutputsRequest(job_id=ID),
    f"{API}/Download": api.DownloadRequest(job_id=ID, name="x"),
    f"{REGISTRY}/GetJob": registry.GetJobRequest(id=ID),
    f"{REGISTRY}/CancelJob": registry.CancelJobRequest(id=ID),
    f"{REGISTRY}/ReplayJob": registry.ReplayJobRequest(id=ID),
    f"{REGISTRY}/Begin": begin(),
}


async def test_what_is_not_there_is_not_found(tmp_path):
    async with stack.running(tmp_path) as gateway:
        for name, request in NOT_FOUND.items():
            with pytest.raises(grpc.RpcError) as caught:
                await answer(gateway.raw(METHODS[name][0]), name, request, serialized)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND, (name, caught.value)
            missing = "nobody@9" if "/Submit" in name else ID
            assert missing in caught.value.details()
