"""A whole fleet with certificates on both ends: who gets in, and everything replaced under load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

import shoal
import shoal.aio
from shoal.authority import Authority
from shoal.identity import PeerIdentity
from shoal.testing import FixedDirectory
from shoal.tls import Tls
from shoal_gateway.access import CALLERS
from shoal_gateway.client import Gateway, state_name
from shoal_gateway.fleet import Fleet
from shoal_gateway.fleet.layout import SERVICES
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from tests.support.waiting import eventually

GRPCURL = Path(sys.executable).with_name("grpcurl")
DEADLINE = 60.0

CALLS = {
    "api": (api_pb2_grpc.ApiStub, "Applications", api_pb2.ApplicationsRequest()),
    "registry": (
        registry_pb2_grpc.RegistryStub,
        "ListJobs",
        registry_pb2.ListJobsRequest(page_size=1),
    ),
    "scheduler": (scheduler_pb2_grpc.SchedulerStub, "Status", scheduler_pb2.StatusRequest()),
    "appmanager": (appmanager_pb2_grpc.AppManagerStub, "Status", appmanager_pb2.StatusRequest()),
}


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """One host with all services, which speak TLS only."""
    made = Fleet(tmp_path_factory.mktemp("tls-fleet"))
    try:
        made.up(hosts=1, tls=True)
        yield made
    finally:
        if made.exists:
            made.down()


@pytest.fixture(scope="module")
def authority(secured):
    return Authority(secured.layout.certificates)


def ask(fleet, service, tls):
    make, method, request = CALLS[service]
    address = fleet.state.zookeeper
    with shoal.Directory(address, cache_dir=fleet.directory / "ask", tls=tls) as directory:
        directory.ready(service, timeout=30.0)
        with directory.channel(service, retry=None) as channel:
            return getattr(make(channel), method)(request, timeout=DEADLINE)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_answers_the_operator(secured, service):
    assert ask(secured, service, secured.tls()) is not None


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_answers_those_who_may_call_it_and_nobody_else(secured, authority, service):
    alice = Tls.of(authority.issue(PeerIdentity("alice", user=True)))
    robot = Tls.of(authority.issue(PeerIdentity("robot")))
    allowed = CALLERS[service]
    for tls, name in ((alice, "user 'alice'"), (robot, "service 'robot'")):
        if allowed is None:
            ask(secured, service, tls)
            continue
        with pytest.raises(grpc.RpcError) as error:
            ask(secured, service, tls)
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error.value.details() == f"{name} may not call this"


def ask_at(replicas, service, tls):
    """As somebody would who knows the addresses."""
    make, method, request = CALLS[service]
    with (
        FixedDirectory({service: replicas}, tls=tls) as known,
        known.channel(service, retry=None) as channel,
    ):
        return getattr(make(channel), method)(request, timeout=DEADLINE)


@pytest.mark.parametrize("service", SERVICES)
def test_nobody_gets_in_without_a_certificate_of_the_fleet(secured, tmp_path, service):
    with secured.directory_of() as directory:
        replicas = directory.ready(service, timeout=30.0)
    with pytest.raises(grpc.RpcError) as error:
        ask_at(replicas, service, None)
    assert "speaks TLS only" in error.value.details()
    other = Tls.of(Authority.create(tmp_path / "other").issue(PeerIdentity("operator")))
    with pytest.raises(grpc.RpcError) as error:
        ask_at(replicas, service, other)
    assert "of no authority that this caller trusts" in error.value.details()


def test_nobody_reads_the_directory_without_a_certificate_of_the_fleet(secured, tmp_path):
    address = secured.state.zookeeper
    other = Tls.of(Authority.create(tmp_path / "other").issue(PeerIdentity("operator")))
    strangers = ((address, other), (address.removeprefix("tls://"), None))
    for where, tls in strangers:
        with shoal.Directory(where, cache_dir=tmp_path / "cache", tls=tls) as directory:
            with pytest.raises(TimeoutError):
                directory.ready("registry", timeout=2.0)
            assert not directory.connected


def grpcurl(place, name, *arguments):
    return subprocess.run(
        [str(GRPCURL), "-cacert", str(place / "ca.crt"), "-cert", str(place / "tls.crt"),
         "-key", str(place / "tls.key"), "-authority", name, *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_grpcurl_with_a_certificate(secured):
    with secured.directory_of() as directory:
        target = directory.ready("registry", timeout=30.0)[0].target
    place = secured.layout.certificates / "operator"
    done = grpcurl(place, "registry.shoal.internal", target, "list")
    assert "shoal.gateway.registry.v1.Registry" in done.stdout, done.stderr
    method = "shoal.gateway.registry.v1.Registry/ListJobs"
    done = grpcurl(place, "registry.shoal.internal", "-d", '{"page_size": 1}', target, method)
    assert isinstance(json.loads(done.stdout), dict), done.stderr
    # Another name is not what the certificate says.
    done = grpcurl(place, "api.shoal.internal", target, "list")
    assert done.returncode != 0
    assert "valid for registry.shoal.internal" in done.stderr


class Users:
    """Two users who call the api all the time, without retries: one blocking, one asyncio."""

    def __init__(self, fleet, certificates) -> None:
        self._fleet = fleet
        self._tls = [Tls.of(each) for each in certificates]
        self._stop = threading.Event()
        self.failures: list[Exception] = []
        self.calls = [0, 0]
        self._channels = []
        self._threads = [
            threading.Thread(target=self._blocking),
            threading.Thread(target=lambda: asyncio.run(self._asyncio())),
        ]

    def _channel(self, directory):
        self._channels.append(directory.channel("api", retry=None))
        return self._channels[-1]

    def moved(self) -> bool:
        """Whether their connections were made with what lies in the files now."""
        return all(
            node.endpoint.made_with is channel.pool.material()
            for channel in self._channels
            for node in channel.pool.balancer.snapshot.nodes
        )

    def _where(self, number):
        return {
            "cache_dir": self._fleet.directory / f"user-{number}",
            "tls": self._tls[number],
        }

    def _blocking(self):
        with shoal.Directory(self._fleet.state.zookeeper, **self._where(0)) as directory:
            stub = api_pb2_grpc.ApiStub(self._channel(directory))
            while not self._stop.is_set():
                try:
                    stub.List(api_pb2.ListRequest(page_size=5), timeout=DEADLINE)
                    self.calls[0] += 1
                except Exception as error:  # noqa: BLE001 - judged at the end
                    self.failures.append(error)

    async def _asyncio(self):
        address = self._fleet.state.zookeeper
        async with shoal.aio.Directory(address, **self._where(1)) as directory:
            stub = api_pb2_grpc.ApiStub(self._channel(directory))
            while not self._stop.is_set():
                try:
                    await stub.List(api_pb2.ListRequest(page_size=5), timeout=DEADLINE)
                    self.calls[1] += 1
                except Exception as error:  # noqa: BLE001 - judged at the end
                    self.failures.append(error)

    def __enter__(self):
        for each in self._threads:
            each.start()
        eventually(lambda: min(self.calls) > 5, what="first calls")
        return self

    def __exit__(self, *_):
        self._stop.set()
        for each in self._threads:
            each.join(DEADLINE)
            assert not each.is_alive()


def read_again(fleet, service, since) -> bool:
    """Whether a service's process has said that it read its new certificate."""
    log = next(iter(fleet.layout.root("host-1").glob(f"logs/{service}-1.log")))
    return log.read_text()[since[service] :].count("was read again") > 0


def test_top_and_doctor_speak_to_replicas_with_certificates(secured):
    def shoal(*arguments):
        command = [Path(sys.executable).with_name("shoal"), "--fleet", secured.directory]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    rows = shoal("top", "--once", "-n", "0.2", "--json")["replicas"]
    assert {row["service"] for row in rows} == set(SERVICES)
    assert {(row["state"], row["fault"]) for row in rows} == {("UP", None)}
    found = {each["what"]: each for each in shoal("doctor", "--json")["findings"]}
    assert found["ZooKeeper's ACLs"]["verdict"] == "ok"
    assert found["clock"]["found"] == "agrees with ZooKeeper's"
    certified = [what for what in found if what.startswith("certificate ")]
    assert len(certified) >= len(SERVICES)


def test_everything_is_replaced_while_jobs_run_and_users_call(secured, authority):
    users = [authority.issue(PeerIdentity(name, user=True)) for name in ("alice", "bob")]

    def after(change) -> None:
        """Makes a change, and waits until all who call others have heard of it."""
        root = secured.layout.root("host-1")
        since = {
            service: len((root / "logs" / f"{service}-1.log").read_text())
            for service in ("api", "scheduler", "local")
        }
        change()
        eventually(
            lambda: all(read_again(secured, service, since) for service in since),
            what="what was changed read by all",
        )
        eventually(load.moved, what="the users' new connections")

    def renew():
        for each in authority.issued():
            authority.issue(each.identity)

    with Users(secured, users) as load, secured.directory_of() as directory:
        gateway = Gateway(directory, "alice")

        def jobs(word):
            return [
                gateway.submit(
                    "nap", inputs={}, parameters={"seconds": "0.5"}, key=f"{word}-{number}"
                ).id
                for number in range(3)
            ]

        submitted = jobs("before")
        after(renew)
        submitted += jobs("renewed")
        after(authority.roll)
        submitted += jobs("rolled")
        after(renew)
        submitted += jobs("renewed-again")
        after(authority.finish)
        submitted += jobs("finished")

        def ended():
            return all(state_name(gateway.get(each).job.state) == "SUCCEEDED" for each in submitted)

        eventually(ended, timeout=60.0, what="every job succeeded")
        found = [gateway.get(each).job for each in submitted]
        assert [len(each.attempts) for each in found] == [1] * len(submitted)
        counted = list(load.calls)
        eventually(
            lambda: all(now > then + 5 for now, then in zip(load.calls, counted, strict=True))
        )
    assert load.failures == []
