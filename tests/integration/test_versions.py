"""Servers of several versions, flavors and contracts side by side, with a real ZooKeeper."""

import threading
from collections import Counter

import grpc
import pytest
from google.protobuf import descriptor_pb2

import shoal
import shoal.aio
from shoal.contracts import KEY, ServedContract
from shoal_gateway.scheduler.logic import NobodyTookError
from shoal_gateway.scheduler.ports import FleetManagers
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.registry.v1 import registry_pb2
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import Echo
from tests.support.protos import SERVICE
from tests.support.versioned import (
    ASK,
    BROKEN,
    LATER,
    OURS,
    SENTENCE,
    Calls,
    aio_server,
    server,
    stub,
)
from tests.support.waiting import eventually

WAIT = 20.0
MANAGER = "shoal.gateway.appmanager.v1.AppManager"


@pytest.fixture
def fleet(directories):
    """Servers that announce themselves, and what was called where."""
    directory, calls, servers = directories(), Calls(), []

    def serve(name, made, **options):
        servers.append(server(name, made, calls, **options))
        servers[-1].serve(directory)
        return servers[-1]

    serve.calls = calls
    yield serve
    for each in servers:
        assert each.stop(0).wait(30)


def versions(replicas):
    return sorted(replica.version for replica in replicas)


def test_versions_and_flavors_serve_side_by_side_and_each_caller_finds_its_own(fleet, directories):
    for version in ("1.1.0", "1.4.2"):
        for flavor in ("local", "slurm"):
            fleet(f"{flavor}-{version}", OURS, version=version, flavor=flavor)
    fleet("local-2.0.0", BROKEN, version="2.0.0", flavor="local")
    fleet("local-2.1.0", LATER, version="2.1.0", flavor="local")
    caller = directories()
    caller.ready("made", count=6)

    def found(**options):
        with caller.channel("made", policy=shoal.RoundRobin(), **options) as channel:
            do = stub(channel)
            return {do(ASK, timeout=WAIT).who for _ in range(24)}

    assert found(version="~=1.1", contract=OURS.service) == {
        "local-1.1.0",
        "slurm-1.1.0",
        "local-1.4.2",
        "slurm-1.4.2",
    }
    assert found(version="==1.4.2", filter=shoal.where(flavor="slurm")) == {"slurm-1.4.2"}
    # Without a range it is the contract alone that keeps 2.0.0 out.
    local = shoal.where(flavor="local")
    assert found(filter=local, contract=OURS.service) == {
        "local-1.1.0",
        "local-1.4.2",
        "local-2.1.0",
    }
    assert "local-2.0.0" not in fleet.calls.by_replica
    canary = shoal.Canary({">=2": 0.25}, shoal.RoundRobin())
    with caller.channel(
        "made", filter=local, contract=OURS.service, policy=canary, slow_start=None
    ) as channel:
        do = stub(channel)
        served = Counter(do(ASK, timeout=WAIT).who for _ in range(80))
    assert served["local-2.1.0"] == pytest.approx(20, abs=4)


def test_what_is_published_is_one_node_for_a_contract_and_stays(
    fleet, chroot, operator, directories
):
    one = fleet("one", OURS, version="1.0")
    fleet("two", OURS, version="1.1")
    fleet("three", LATER, version="1.2")
    path = "/" + chroot.partition("/")[2] + "/protos"
    digest = one.replica.metadata[KEY]
    assert sorted(operator.get_children(path)) == sorted(
        ServedContract.of([SERVICE], made.pool).digest for made in (OURS, LATER)
    )
    data, stat = operator.get(f"{path}/{digest}")
    assert stat.ephemeralOwner == 0
    assert ServedContract.unpack(digest, data).service(SERVICE).full_name == SERVICE
    assert one.stop(0).wait(30)
    assert operator.exists(f"{path}/{digest}")


def test_an_incompatible_replica_gets_no_call_and_a_compatible_one_takes_its_place_live(
    fleet, directories
):
    bad = fleet("bad", BROKEN, version="2.0.0")
    caller = directories()
    caller.ready("made")
    with caller.channel("made", contract=OURS.service) as channel:
        do = stub(channel)
        with pytest.raises(shoal.CallError) as caught:
            do(ASK, timeout=WAIT)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        told = f"version 2.0.0 (replica bad) has another contract: {SENTENCE}"
        assert told in caught.value.details()
        # A call that waits is served by the one that comes.
        waiting = do.future(ASK, timeout=WAIT, wait_for_ready=True)
        fleet("good", LATER, version="2.0.1")
        assert waiting.result().who == "good"
        bad.drain()
        assert do(ASK, timeout=WAIT).who == "good"
        eventually(lambda: not channel.snapshot().unfit, what="the unfit one's leaving")
    assert set(fleet.calls.by_replica) == {"good"}


def test_under_load_no_call_goes_wrong_when_a_broken_version_comes_and_goes(fleet, directories):
    fleet("good", OURS, version="1.0")
    caller = directories()
    caller.ready("made")
    ended, failures, served = threading.Event(), [], Counter()
    with caller.channel("made", contract=OURS.service, retry=None) as channel:
        do = stub(channel)

        def steady():
            while not ended.is_set():
                try:
                    served[do(ASK, timeout=WAIT).who] += 1
                except grpc.RpcError as error:
                    failures.append(error)

        threads = [threading.Thread(target=steady) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            bad = fleet("bad", BROKEN, version="2.0")
            eventually(lambda: channel.snapshot().unfit, what="news of the broken one")
            calls = served["good"]
            eventually(lambda: served["good"] > calls + 20, what="more calls")
            bad.drain()
            fleet("better", LATER, version="2.1")
            eventually(lambda: served["better"], what="calls to the new one")
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    assert failures == []
    assert "bad" not in fleet.calls.by_replica


async def test_the_same_with_asyncio_on_both_sides(chroot, tmp_path):
    calls = Calls()
    async with shoal.aio.Directory(chroot, cache_dir=tmp_path) as directory:
        bad = aio_server("bad", BROKEN, calls, version="2.0.0")
        await bad.serve(directory)
        async with shoal.aio.Directory(chroot, cache_dir=tmp_path / "caller") as caller:
            await caller.ready("made")
            async with caller.channel("made", contract=OURS.service, version=">=1") as channel:
                do = stub(channel)
                with pytest.raises(shoal.aio.AioCallError, match=SENTENCE):
                    await do(ASK, timeout=WAIT)
                good = aio_server("good", OURS, calls, version="2.0.1", flavor="other")
                await good.serve(directory)
                answer = await do(ASK, timeout=WAIT, wait_for_ready=True)
                assert answer.who == "good"
        await bad.stop(0)
        await good.stop(0)
    assert set(calls.by_replica) == {"good"}


def test_contracts_outlive_zookeepers_outage_on_the_callers_disk(own_zookeeper, tmp_path):
    hosts = f"{own_zookeeper.hosts}/gone"
    cache, calls = tmp_path / "cache", Calls()
    with shoal.Directory(hosts, cache_dir=cache) as directory:
        servers = [server("good", OURS, calls), server("bad", BROKEN, calls)]
        for each in servers:
            each.serve(directory)
        with directory.channel("made", contract=OURS.service) as channel:
            assert stub(channel)(ASK, timeout=WAIT).who == "good"
            eventually(lambda: channel.snapshot().unfit, what="the unfit one")
        saved = directory.watch("made")._cache.path("made")
        eventually(lambda: saved.exists() and "bad" in saved.read_text(), what="the snapshot")
        own_zookeeper.kill()
        # A new process of that machine, while ZooKeeper is dead.
        with (
            shoal.Directory(hosts, cache_dir=cache) as later,
            later.channel("made", contract=OURS.service) as channel,
        ):
            do = stub(channel)
            assert {do(ASK, timeout=WAIT).who for _ in range(10)} == {"good"}
            assert [each.replica.id for each in channel.snapshot().unfit] == ["bad"]
        own_zookeeper.start()
        for each in servers:
            assert each.stop(0).wait(30)
    assert set(calls.by_replica) == {"good"}


def test_a_contract_is_there_again_when_zookeeper_comes_back_without_its_data(
    own_zookeeper, tmp_path
):
    hosts = f"{own_zookeeper.hosts}/wiped"
    calls = Calls()
    with shoal.Directory(hosts, cache_dir=tmp_path / "a") as directory:
        good = server("good", OURS, calls)
        good.serve(directory)
        own_zookeeper.kill()
        own_zookeeper.wipe()
        own_zookeeper.start()
        with shoal.Directory(hosts, cache_dir=tmp_path / "b") as caller:
            caller.ready("made", timeout=60.0)
            with caller.channel("made", contract=OURS.service) as channel:
                assert stub(channel)(ASK, timeout=WAIT).who == "good"
                found = caller._contracts._known
                assert list(found) == [good.replica.metadata[KEY]]
        assert good.stop(0).wait(30)


def test_a_node_with_something_else_in_it_is_told_of_and_checked_when_it_is_mended(
    directories, chroot, operator, caplog, tmp_path
):
    contract = ServedContract.of(["shoal.testing.v1.Echo"])
    path = "/" + chroot.partition("/")[2] + f"/protos/{contract.digest}"
    operator.create(path, b"nonsense", makepath=True)
    directory = directories()
    echo = shoal.Server("echo", id="one", linger=0.1)
    echo_pb2_grpc.add_EchoServicer_to_server(Echo("one"), echo)
    echo.serve(directory)
    caller = directories(cache_dir=tmp_path / "caller")
    with caller.channel("echo", contract=echo_pb2) as channel:
        answer = echo_pb2_grpc.EchoStub(channel).Echo(echo_pb2.EchoRequest(), timeout=WAIT)
        assert answer.server == "one"
        assert "is damaged" in caplog.text
        operator.set(path, contract.packed())
        caller._contracts.connected()
        eventually(lambda: caller._contracts._known, what="the second look")
    assert echo.stop(0).wait(30)


def managers_of(change):
    """Descriptors of the app manager as they would be after a change, in a pool of their own."""
    whole = ServedContract.of([MANAGER])
    files = descriptor_pb2.FileDescriptorSet.FromString(whole.files)
    messages = {
        f"{file.package}.{each.name}": each for file in files.file for each in file.message_type
    }
    change(messages)
    return ServedContract(files.SerializeToString(deterministic=True))._loaded()


def broken(messages):
    item = messages["shoal.gateway.appmanager.v1.StartResponse"].nested_type[0]
    item.field[0].type = descriptor_pb2.FieldDescriptorProto.TYPE_INT64


def older(messages):
    # What a scheduler of today says beside the job was not there yet.
    offer = messages["shoal.gateway.registry.v1.Offer"]
    del offer.field[1:]


class Manager(appmanager_pb2_grpc.AppManagerServicer):
    """Takes every job."""

    def __init__(self):
        self.offers = []

    def Start(self, request, context):
        self.offers += request.offers
        started = appmanager_pb2.StartResponse.VERDICT_STARTED
        items = [appmanager_pb2.StartResponse.Item(job_id="1", verdict=started)]
        return appmanager_pb2.StartResponse(items=items)


async def test_the_scheduler_offers_nothing_to_managers_of_another_contract(
    directories, chroot, tmp_path
):
    directory, servers = directories(), []

    def manager(name, version, change):
        servicer, pool = Manager(), managers_of(change)
        options = {"flavor": "local", "reflection": False, "linger": 0.1}
        made = shoal.Server("appmanager", id=name, version=version, descriptors=pool, **options)
        appmanager_pb2_grpc.add_AppManagerServicer_to_server(servicer, made)
        made.serve(directory)
        servers.append(made)
        return servicer

    async with shoal.aio.Directory(chroot, cache_dir=tmp_path / "scheduler") as scheduler:
        managers = FleetManagers(scheduler, 10.0)
        refused = manager("bad", "2.0", broken)
        await scheduler.ready("appmanager")
        with pytest.raises(
            NobodyTookError,
            match=r"version 2\.0 \(replica bad\) .*Item\.job_id changed from string to int64",
        ):
            await managers.start("local", [registry_pb2.Offer()])
        # An older one fits, for that is what the gateway's services are to each other.
        taken = manager("old", "0.9", older)
        await scheduler.ready("appmanager", count=2)
        for _ in range(5):
            await managers.start("local", [registry_pb2.Offer()])
    assert (refused.offers, len(taken.offers)) == ([], 5)
    for each in servers:
        assert each.stop(0).wait(30)


def test_a_contract_that_an_operator_deleted_is_published_again(directories, chroot, operator):
    directory, calls = directories(verify_every=0.2), Calls()
    good = server("good", OURS, calls)
    replica = good.serve(directory)
    path = "/" + chroot.partition("/")[2] + f"/protos/{replica.metadata[KEY]}"
    operator.delete(path)
    eventually(lambda: operator.exists(path), what="the contract's return")
    assert good.stop(0).wait(30)
