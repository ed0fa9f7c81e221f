"""Keys, connections, reports, hooks, subsets and a channel's view, against real servers."""

import threading
import time

import grpc
import pytest

import shoal
from shoal import orca
from shoal.channel import Channel
from shoal.retry import Retry
from shoal.testing import FixedDirectory
from shoal_balancer import (
    Ejection,
    LoadReport,
    Outcome,
    Rendezvous,
    Replica,
    RoundRobin,
    Subset,
    WeightedRoundRobin,
)
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import EchoProcess, EchoServer
from tests.support.waiting import eventually

REQUEST = echo_pb2.EchoRequest(payload=b"x")


@pytest.fixture
def stubs(directory):
    """Makes stubs on channels that are closed at the end."""
    channels = []

    def make(**options):
        channels.append(Channel(directory, "echo", **options))
        return echo_pb2_grpc.EchoStub(channels[-1])

    make.channels = channels
    yield make
    for channel in channels:
        channel.close()


@pytest.mark.parametrize(
    "key", ["user", lambda request, metadata: dict(metadata or ()).get("user")], ids=["str", "call"]
)
def test_calls_of_one_key_go_to_one_replica_whatever_their_kind(stubs, key):
    stub = stubs(policy=Rendezvous(), key=key)
    homes = {}
    for user in map(str, range(24)):
        metadata = (("user", user),)
        found = {
            stub.Echo(REQUEST, metadata=metadata).server,
            stub.Echo.with_call(REQUEST, metadata=metadata)[0].server,
            stub.Echo.future(REQUEST, metadata=metadata).result().server,
            next(stub.EchoDown(REQUEST, metadata=metadata)).server,
            stub.EchoUp(iter([REQUEST]), metadata=metadata).server,
            next(stub.EchoBoth(iter([REQUEST]), metadata=metadata)).server,
        }
        assert len(found) == 1
        homes[user] = found.pop()
    assert len(set(homes.values())) > 1


def test_a_key_may_come_from_the_request(stubs):
    stub = stubs(policy=Rendezvous(), key=lambda request, metadata: request.payload)
    for payload in (b"a", b"b", b"c"):
        request = echo_pb2.EchoRequest(payload=payload)
        assert len({stub.Echo(request).server for _ in range(10)}) == 1


def test_a_key_whose_replica_fails_is_served_by_its_next(stubs, servers):
    stub = stubs(policy=Rendezvous(), key="user", retry=Retry(backoff=0.001))
    metadata = (("user", "ann"),)
    home = stub.Echo(REQUEST, metadata=metadata).server
    (server,) = (each for each in servers if each.servicer.name == home)
    server.servicer.script = lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "down")
    assert stub.Echo(REQUEST, metadata=metadata).server != home


def test_a_replica_that_lost_its_connection_is_passed_over_until_it_is_back():
    with EchoServer("a") as first, EchoProcess("b") as second:
        directory = FixedDirectory({"echo": [first.target, second.target]})
        with Channel(directory, "echo", policy=RoundRobin(), ejection=None) as channel:
            stub = echo_pb2_grpc.EchoStub(channel)
            for _ in range(4):
                stub.Echo(REQUEST)
            second.kill()
            for _ in range(20):
                assert stub.Echo(REQUEST).server == "a"
            (lost,) = (each for each in channel.snapshot().replicas if not each.reachable)
            assert lost.replica.target == second.target
            assert lost.failures <= 2
            assert lost.state in {"idle", "connecting", "transient failure"}
            # Another process on its port: it is looked for, without a call that has to fail first.
            with EchoServer("c", port=second.port):
                eventually(lambda: all(each.reachable for each in channel.snapshot().replicas))
                assert {stub.Echo(REQUEST).server for _ in range(4)} == {"a", "c"}


def test_a_set_that_was_down_whole_comes_back_bit_by_bit_and_waiting_calls_get_through():
    processes = [EchoProcess(name) for name in "abc"]
    directory = FixedDirectory({"echo": [each.target for each in processes]})
    with Channel(directory, "echo", retry=None, ejection=None) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        for _ in range(30):
            stub.Echo(REQUEST)
        for process in processes:
            process.kill()

        def fails():
            try:
                stub.Echo(REQUEST, timeout=5.0)
            except shoal.CallError:
                return channel.snapshot().down
            return False

        eventually(fails, what="that all are known to be down")
        with EchoServer("back", port=processes[0].port):
            eventually(lambda: channel.snapshot().admission < 1.0, what="the first one back")
            began = time.monotonic()
            # Held back, and let through within the time of a slow start at the latest.
            assert stub.Echo(REQUEST, timeout=30.0).server == "back"
            assert time.monotonic() - began < 20.0


def test_a_replica_that_accepts_and_never_answers_is_ejected_on_deadlines(stubs, servers):
    release = threading.Event()
    servers[0].servicer.script = lambda context: release.wait(20.0)
    retry = Retry(attempt_timeout=0.2, backoff=0.001)
    stub = stubs(policy=RoundRobin(), retry=retry, ejection=Ejection(failures=3, base=60.0))
    channel = stubs.channels[0]
    for _ in range(12):
        # A safe method: each that meets it is answered by another.
        assert stub.Echo(REQUEST, timeout=20.0).server in "bc"
    gray = next(
        each for each in channel.snapshot().replicas if each.replica.target == servers[0].target
    )
    assert gray.ejected_for > 30.0
    assert gray.failures == len(servers[0].seen) == 3
    assert gray.state == "ready"
    release.set()


def reporting(server, utilisation):
    """Has a server say how busy it is, as `shoal.Server` does."""

    def script(context):
        report = LoadReport(utilisation=utilisation, qps=100.0)
        context.set_trailing_metadata(((orca.KEY, orca.encode(report)),))

    server.servicer.script = script


def test_reports_reach_the_policy_from_every_kind_of_call(stubs, servers):
    for server in servers:
        reporting(server, 0.5)
    stub = stubs(policy=WeightedRoundRobin(blackout=0.0))
    for send in (
        lambda: stub.Echo(REQUEST),
        lambda: stub.Echo.with_call(REQUEST),
        lambda: stub.Echo.future(REQUEST).result(),
        lambda: list(stub.EchoDown(REQUEST)),
        lambda: stub.EchoUp(iter([REQUEST])),
        lambda: list(stub.EchoBoth(iter([REQUEST]))),
    ):
        loads = [node.load for node in stubs.channels[0].pool.balancer.snapshot.nodes]
        for load in loads:
            load._since = None
        for _ in range(3):
            send()
        eventually(
            lambda loads=loads: [load.weight(time.monotonic()) for load in loads] == [200.0] * 3,
            what="a report of each",
        )


def test_a_busy_replica_gets_less(stubs, servers):
    for server, utilisation in zip(servers, (0.2, 0.8, 0.8), strict=True):
        reporting(server, utilisation)
    stub = stubs(policy=WeightedRoundRobin(blackout=0.0, period=0.0))
    for _ in range(30):
        stub.Echo(REQUEST)
    found = [stub.Echo(REQUEST).server for _ in range(300)]
    assert found.count("a") == pytest.approx(200, abs=10)


def test_unreadable_reports_harm_nobody(stubs, servers):
    for server in servers:
        server.servicer.script = lambda context: context.set_trailing_metadata(
            ((orca.KEY, b"\xff\xff"),)
        )
    assert stubs(policy=WeightedRoundRobin()).Echo(REQUEST).payload == b"x"


class Heard(shoal.Hooks):
    def __init__(self):
        self.ends = []
        self.others = []

    def ended(self, replica, latency, outcome):
        assert latency >= 0.0
        self.ends.append(outcome)

    def ejected(self, replica, seconds):
        self.others.append(("ejected", replica.target, 4.0 <= seconds <= 6.0))

    def readmitted(self, replica):
        self.others.append(("readmitted", replica.target))

    def retried(self, method, number, failed):
        self.others.append(("retried", method, number, failed.code))


def test_hooks_hear_of_attempts_retries_and_ejections(stubs, servers):
    heard = Heard()
    rule = Ejection(failures=1)
    stub = stubs(hooks=heard, policy=RoundRobin(), ejection=rule, retry=Retry(backoff=0.001))
    servers[0].servicer.script = lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "down")
    for _ in range(6):
        stub.Echo(REQUEST)
    assert heard.ends.count(Outcome.OK) == 6
    assert heard.ends.count(Outcome.FAILED) == 1
    method = "/shoal.testing.v1.Echo/Echo"
    assert heard.others == [
        ("ejected", servers[0].target, True),
        ("retried", method, 2, grpc.StatusCode.UNAVAILABLE),
    ]


def test_without_hooks_a_node_is_a_plain_node(stubs):
    stubs()
    nodes = stubs.channels[0].pool.balancer.snapshot.nodes
    assert {type(node).__name__ for node in nodes} == {"Node"}


def test_a_view_tells_all_that_a_person_asks(stubs, servers):
    stub = stubs(policy=RoundRobin(), retry=Retry())
    channel = stubs.channels[0]
    assert {each.state for each in channel.snapshot().replicas} == {"unused"}
    release, sent = threading.Event(), threading.Event()

    def fail(context):
        # A failure looks for another replica, which takes a turn; not before all have theirs.
        sent.wait(20.0)
        context.abort(grpc.StatusCode.INTERNAL, "bug")

    servers[0].servicer.script = lambda context: release.wait(20.0)
    servers[1].servicer.script = fail
    futures = [stub.Echo.future(REQUEST) for _ in range(3)]
    sent.set()
    eventually(lambda: sum(future.done() for future in futures) == 2)
    view = channel.snapshot()
    by_target = {each.replica.target: each for each in view.replicas}
    busy, failing, fine = (by_target[server.target] for server in servers)
    assert (busy.in_flight, busy.calls, busy.state) == (1, 0, "ready")
    assert (failing.in_flight, failing.calls, failing.failures) == (0, 1, 1)
    assert (fine.calls, fine.failures, fine.ejected_for, fine.share) == (1, 0, None, 1.0)
    assert (view.service, view.policy, view.panic, view.down) == (
        "echo",
        "RoundRobin()",
        False,
        False,
    )
    assert view.retries_left > 0
    release.set()
    for future in futures:
        future.exception()


def test_a_subset_bounds_the_connections(servers):
    members = [Replica(f"r{n}", "127.0.0.1", 20_000 + n) for n in range(100)]
    directory = FixedDirectory({"echo": members})
    with Channel(directory, "echo", subset=Subset(size=12, above=50)) as channel:
        assert len(channel.snapshot().replicas) == 12
        directory.set("echo", members[:50])
        assert len(channel.snapshot().replicas) >= 50


def test_a_canary_gets_its_share_of_real_calls(servers, channels):
    replicas = [
        Replica(version, "127.0.0.1", int(server.target.rpartition(":")[2]), version=version[:3])
        for server, version in zip(servers, ["1.0", "1.0b", "1.1"], strict=True)
    ]
    channel = channels(
        where=FixedDirectory({"echo": replicas}), policy=shoal.Canary({"1.1": 0.1}, RoundRobin())
    )
    stub = echo_pb2_grpc.EchoStub(channel)
    found = [stub.Echo(REQUEST, wait_for_ready=True, timeout=20.0).server for _ in range(200)]
    assert found.count("c") == pytest.approx(20, abs=3)
