"""The core services as real processes with a real ZooKeeper: killed, restarted, drained."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from shoal.server import Server
from shoal_balancer import LeastLoaded
from shoal_gateway.convert import duration
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from tests.services.registry.conftest import spec
from tests.support.replicas import Replicas
from tests.support.waiting import eventually

DEADLINE = 60.0
Verdict = appmanager_pb2.StartResponse


@pytest.fixture
def directory(directories):
    return directories()


@pytest.fixture
def processes(chroot, tmp_path, directory):
    with Replicas(chroot, tmp_path, directory) as made:
        yield made


@pytest.fixture
def registry(directory):
    with directory.channel("registry") as channel:
        yield registry_pb2_grpc.RegistryStub(channel)


class Managers(appmanager_pb2_grpc.AppManagerServicer):
    """An app manager whose answers a test decides; it starts nothing."""

    def __init__(self):
        self.verdict = Verdict.VERDICT_FULL
        self.offers = []
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def Start(self, request, context):
        self.offers += request.offers
        self.asked.set()
        self.go_on.wait(DEADLINE)
        return appmanager_pb2.StartResponse(
            items=[
                Verdict.Item(job_id=offer.job_id, verdict=self.verdict) for offer in request.offers
            ],
            utilisation=1.0,
        )


@pytest.fixture
def managers(directory):
    servicer = Managers()
    server = Server("appmanager", id="appmanager-1", flavor="local")
    appmanager_pb2_grpc.add_AppManagerServicer_to_server(servicer, server)
    server.serve(directory)
    yield servicer
    servicer.go_on.set()
    server.stop(0).wait(30)


class ById(LeastLoaded):
    """Always the first by name."""

    def choose(self, nodes, now, rng):
        return min(nodes, key=lambda node: node.replica.id)


def create(registry, key):
    request = registry_pb2.CreateJobRequest(owner="ada", idempotency_key=key, spec=spec())
    return registry.CreateJob(request, timeout=DEADLINE)


def counts(registry):
    answer = registry.Summary(registry_pb2.SummaryRequest(), timeout=DEADLINE)
    return {job_pb2.State.Name(count.state): count.jobs for count in answer.counts}


def test_a_registry_killed_during_a_submit_gives_the_retry_the_same_job(processes, directory):
    first = processes.start("registry", 1)
    processes.start("registry", 2)
    directory.ready("registry", 30, count=2)
    with directory.channel("registry", policy=ById()) as channel, ThreadPoolExecutor(1) as pool:
        registry = registry_pb2_grpc.RegistryStub(channel)
        # Another writer holds the store, so that the submit hangs in the first replica.
        blocker = sqlite3.connect(processes.root / "registry.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        submitting = pool.submit(create, registry, "key")
        nodes = channel.pool.balancer.snapshot.nodes
        eventually(lambda: any(node.in_flight for node in nodes), what="a call in flight")
        time.sleep(0.3)
        assert not submitting.done()
        processes.kill(first)
        blocker.execute("ROLLBACK")
        blocker.close()
        answer = submitting.result(DEADLINE)
        again = create(registry, "key")
        assert (again.job.id, again.created) == (answer.job.id, False)
        assert counts(registry) == {"STATE_QUEUED": 1}


def test_submits_go_on_while_registries_are_killed_and_none_is_lost_or_doubled(processes, registry):
    names = [processes.start("registry", number) for number in (1, 2, 3)]
    keys = [f"key-{number}" for number in range(90)]
    done = threading.Semaphore(0)

    def submit(key):
        answer = create(registry, key)
        done.release()
        return answer.job.id

    with ThreadPoolExecutor(6) as pool:
        submitted = [pool.submit(submit, key) for key in keys]
        for name in names:
            for _ in range(10):
                assert done.acquire(timeout=DEADLINE)
            processes.kill(name)
            # The same id comes back at another port.
            processes.start("registry", int(name[-1]))
        ids = [each.result(DEADLINE) for each in submitted]
    assert len(set(ids)) == len(keys)
    for key, job_id in zip(keys, ids, strict=True):
        again = create(registry, key)
        assert (again.job.id, again.created) == (job_id, False)
    assert counts(registry) == {"STATE_QUEUED": len(keys)}


def test_a_user_sees_one_job_through_the_deaths_of_apis_and_registries(processes, directory):
    registries = [processes.start("registry", number) for number in (1, 2)]
    apis = [processes.start("api", number) for number in (1, 2)]
    with directory.channel("api") as channel, ThreadPoolExecutor(4) as pool:
        api = api_pb2_grpc.ApiStub(channel)

        def submit(key):
            request = api_pb2.SubmitRequest(
                owner="ada", idempotency_key=key, application="nap", parameters={"seconds": "1"}
            )
            return api.Submit(request, timeout=DEADLINE).job.id

        done = [submit("key-0")]
        keys = [f"key-{number}" for number in range(40)]
        submitted = [pool.submit(submit, key) for key in keys]
        for victim in (registries[0], apis[0]):
            eventually(lambda: any(each.done() for each in submitted), what="a submit")
            processes.kill(victim)
            service, _, number = victim.rpartition("-")
            processes.start(service, int(number))
        ids = [each.result(DEADLINE) for each in submitted]
        assert len(set(ids)) == len(keys)
        assert ids[0] == done[0]
        assert [submit(key) for key in keys] == ids
        # A job that is cancelled while somebody watches: the watcher hears of it, through whichever
        # replica.
        watch = api.Watch(api_pb2.WatchRequest(job_id=ids[0]), timeout=DEADLINE)
        first = next(watch).event
        assert first.state == job_pb2.STATE_SUBMITTED
        api.Cancel(api_pb2.CancelRequest(id=ids[0]), timeout=DEADLINE)
        assert [each.event.state for each in watch][-1] == job_pb2.STATE_CANCELLED
        assert processes.terminate(apis[1]) == 0


def test_a_scheduler_that_dies_with_offers_in_hand_loses_none(processes, registry, managers):
    processes.start("registry", 1)
    managers.go_on.clear()
    for number in range(3):
        create(registry, f"key-{number}")
    first = processes.start("scheduler", 1, "--lease", "2", "--poll", "0.1")
    assert managers.asked.wait(DEADLINE)
    assert counts(registry)["STATE_LEASED"] >= 1
    processes.kill(first)
    # Nobody leases now: the registry by itself takes back what the dead one held.
    eventually(lambda: counts(registry) == {"STATE_QUEUED": 3}, what="all jobs queued again")
    held = {offer.job_id for offer in managers.offers}
    managers.offers.clear()
    managers.go_on.set()
    processes.start("scheduler", 2, "--poll", "0.1")
    eventually(lambda: held <= {offer.job_id for offer in managers.offers}, what="new offers")
    assert all(offer.attempt == 1 for offer in managers.offers)


def test_a_scheduler_that_is_told_to_end_gives_back_what_it_holds(
    processes, registry, managers, directory
):
    processes.start("registry", 1)
    for number in range(5):
        create(registry, f"key-{number}")
    name = processes.start("scheduler", 1, "--lease", "60", "--poll", "0.1")
    assert managers.asked.wait(DEADLINE)
    with directory.channel("scheduler") as channel:
        stub = scheduler_pb2_grpc.SchedulerStub(channel)
        status = stub.Status(scheduler_pb2.StatusRequest(), timeout=DEADLINE)
        assert status.leased >= 1
    assert processes.terminate(name) == 0
    # Not one waits for the end of its minute.
    assert counts(registry) == {"STATE_QUEUED": 5}


def test_a_registry_with_waiting_followers_drains_without_waiting_for_them(processes, registry):
    name = processes.start("registry", 1)
    request = registry_pb2.ChangesRequest(after=0, wait=duration(10.0))
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(registry.Changes, request, timeout=DEADLINE) for _ in range(8)]
        time.sleep(0.5)
        assert processes.terminate(name) == 0
        assert "calls cut off" not in processes.log(name)
        # Sent away with what there is; each call ended well.
        assert [each.result(DEADLINE).last for each in waiting] == [0] * 8


def test_a_store_that_cannot_be_used_is_said_at_once(processes, chroot):
    processes.store = "sqlite:////no/such/place/registry.db"
    with pytest.raises(AssertionError, match="directory that exists"):
        processes.start("registry", 1)
