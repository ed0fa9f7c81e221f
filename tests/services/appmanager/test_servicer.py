"""The app manager's calls over real gRPC: what it refuses, and how it says so."""

import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from shoal.refusal import refusal_in
from shoal_gateway.appmanager.logic import AppManager
from shoal_gateway.appmanager.servicer import AppManagerServicer
from shoal_gateway.objectstore import ObjectStore
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2
from tests.services.appmanager.fakes import FakeRegistry
from tests.support.waiting import eventually

FILE = job_pb2.FileRef(
    name="a.csv", object=job_pb2.ObjectRef(key="uploads/a", sha256="0" * 64, size=1)
)


@pytest.fixture
def registry():
    return FakeRegistry()


@pytest.fixture
def manager(registry, tmp_path):
    made = AppManager(
        registry,
        ObjectStore.open(f"file://{tmp_path}/objects"),
        root=tmp_path,
        flavor="local",
        slots=1,
        lease=1.0,
        python=sys.executable,
    )
    made.open()
    yield made
    for runner in made.running():
        runner.disown()
    eventually(lambda: not made.running(), what="an idle manager")
    made.close()


@pytest.fixture
def stub(manager):
    server = grpc.server(ThreadPoolExecutor(4))
    appmanager_pb2_grpc.add_AppManagerServicer_to_server(
        AppManagerServicer(manager, "host-1"), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield appmanager_pb2_grpc.AppManagerStub(channel)
    server.stop(0).wait(30)


def offer(**changes):
    spec = job_pb2.JobSpec(
        application="test@1.0",
        flavor="local",
        command=["{python}", "-c", "import time; time.sleep(3600)"],
        inputs=[],
        outputs=["x"],
    )
    made = registry_pb2.Offer(job_id=str(uuid.uuid4()), attempt=1, fence=1, spec=spec)
    for path, value in changes.items():
        target = made.spec if hasattr(made.spec, path) else made
        if isinstance(value, list):
            target.ClearField(path)
            getattr(target, path).extend(value)
        elif isinstance(value, job_pb2.Resources):
            target.resources.CopyFrom(value)
        else:
            setattr(target, path, value)
    return made


def start(stub, *offers):
    return stub.Start(appmanager_pb2.StartRequest(offers=offers), timeout=30)


def renamed(**changes):
    file = job_pb2.FileRef()
    file.CopyFrom(FILE)
    for name, value in changes.items():
        setattr(file if name == "name" else file.object, name, value)
    return file


BAD = {
    "offers[0].job_id": [{"job_id": ""}, {"job_id": "../../etc"}],
    "offers[0].attempt": [{"attempt": 0}, {"attempt": -1}],
    "offers[0].fence": [{"fence": 0}],
    "offers[0].spec.application": [{"application": ""}, {"application": "../x@1"}],
    "offers[0].spec.flavor": [{"flavor": ""}],
    "offers[0].spec.command": [{"command": []}, {"command": [""]}, {"command": ["a", "b\0"]}],
    "offers[0].spec.outputs[0]": [{"outputs": ["/etc/passwd"]}, {"outputs": ["a/../../b"]}],
    "offers[0].spec.inputs[0].name": [{"inputs": [renamed(name="../x")]}],
    "offers[0].spec.inputs[0].object.sha256": [{"inputs": [renamed(sha256="abc")]}],
    "offers[0].spec.resources.wall_seconds": [
        {"resources": job_pb2.Resources(wall_seconds=-1.0)},
        {"resources": job_pb2.Resources(wall_seconds=float("nan"))},
    ],
    "offers[0].spec.resources.memory_mib": [{"resources": job_pb2.Resources(memory_mib=-1)}],
}


@pytest.mark.parametrize(
    ("field", "changes"), [(field, each) for field, many in BAD.items() for each in many]
)
def test_a_bad_offer_is_refused_by_its_field_and_nothing_is_begun(stub, registry, field, changes):
    with pytest.raises(grpc.RpcError) as caught:
        start(stub, offer(**changes))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(field)
    assert registry.begun == []


def test_no_offers_one_without_a_spec_and_one_that_is_there_twice(stub, registry):
    one = offer()
    bare = registry_pb2.Offer(job_id=str(uuid.uuid4()), attempt=1, fence=1)
    for offers, said in (([], "offers"), ([bare], "offers[0].spec"), ([one, one], "offers[1]")):
        with pytest.raises(grpc.RpcError) as caught:
            start(stub, *offers)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details().startswith(said)
    assert registry.begun == []


def test_a_full_manager_refuses_the_whole_call_so_that_it_is_safe_elsewhere(stub, registry):
    answer = start(stub, offer(), offer())
    Verdict = appmanager_pb2.StartResponse  # noqa: N806 - a message's name
    assert [item.verdict for item in answer.items] == [
        Verdict.VERDICT_STARTED,
        Verdict.VERDICT_FULL,
    ]
    assert answer.utilisation == 1.0
    with pytest.raises(grpc.RpcError) as caught:
        start(stub, offer())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal_in(caught.value.trailing_metadata()) == "full"
    assert len(registry.begun) == 1


def test_a_manager_that_leaves_takes_nothing_and_fails_no_call(manager, registry):
    servicer = AppManagerServicer(manager, "host-1", leaving=lambda: True)
    request = appmanager_pb2.StartRequest(offers=[offer(), offer()])
    answer = servicer.Start(request, context=None)
    assert [item.verdict for item in answer.items] == [
        appmanager_pb2.StartResponse.VERDICT_FULL
    ] * 2
    assert {item.reason for item in answer.items} == {"this app manager is leaving"}
    assert answer.utilisation == 1.0
    assert registry.begun == []


def test_what_it_runs_can_be_seen(stub, manager):
    one = offer()
    start(stub, one)
    status = stub.Status(appmanager_pb2.StatusRequest(), timeout=30)
    (running,) = status.running
    assert (running.job_id, running.attempt) == (one.job_id, 1)
    assert running.supervisor_pid > 1
    assert (status.slots, status.utilisation) == (1, 1.0)
    assert (status.flavor, status.host) == ("local", "host-1")
