"""One replica's life and end, with a real ZooKeeper and real processes."""

import json
import signal
import subprocess
import sys
import threading

import grpc
import pytest

import shoal
from shoal.drain import Phase
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import ROOT, Echo
from tests.support.replica import SERVICE, ReplicaProcess
from tests.support.waiting import eventually

NO_RETRIES = {"retry": None, "options": [("grpc.enable_retries", 0)]}
WAIT = 60


def node_of(operator, chroot, name):
    path = f"/{chroot.partition('/')[2]}/services/{SERVICE}/{name}"
    if operator.exists(path) is None:
        return None
    return json.loads(operator.get(path)[0])


def is_draining(operator, chroot, name):
    node = node_of(operator, chroot, name)
    return not node.get("enabled", True) and "DRAINING" in json.dumps(node)


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_sigterm_while_a_stream_runs_lets_it_end(kind, chroot, directories, operator):
    directory = directories()
    channel = directory.channel(SERVICE, **NO_RETRIES)
    with ReplicaProcess(chroot, "one", kind) as replica:
        directory.ready(SERVICE, WAIT)
        assert "shoal.testing.v1.Echo" in str(node_of(operator, chroot, "one"))
        stream = echo_pb2_grpc.EchoStub(channel).EchoDown(
            echo_pb2.EchoRequest(payload=b"x", answers=25, work=0.1), timeout=WAIT
        )
        next(stream)
        replica.terminate()
        eventually(lambda: is_draining(operator, chroot, "one"))
        assert len(list(stream)) == 24
        report = replica.left()
    assert (len(report.confirmed), report.unfinished, len(report.silent)) == (1, 0, 0)
    assert node_of(operator, chroot, "one") is None


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_a_second_sigterm_cuts_a_stream_off(kind, chroot, directories, operator):
    directory = directories()
    channel = directory.channel(SERVICE, **NO_RETRIES)
    with ReplicaProcess(chroot, "one", kind) as replica:
        directory.ready(SERVICE, WAIT)
        stream = echo_pb2_grpc.EchoStub(channel).EchoDown(
            echo_pb2.EchoRequest(answers=600, work=0.1), timeout=WAIT
        )
        next(stream)
        replica.terminate()
        eventually(lambda: is_draining(operator, chroot, "one"))
        replica.process.send_signal(signal.SIGINT)
        report = replica.left(timeout=30)
        with pytest.raises(grpc.RpcError):
            list(stream)
    assert report.unfinished == 1
    assert report.seconds < 30


CALLER = """
import sys, shoal
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
directory = shoal.Directory(sys.argv[1], cache_dir=sys.argv[2])
stub = echo_pb2_grpc.EchoStub(directory.channel("echo"))
print(stub.Echo(echo_pb2.EchoRequest(), timeout=30).server, flush=True)
sys.stdin.read()
"""


def serving(directory, **options):
    """A server in this process, so that the test sees its roster."""
    server = shoal.Server(SERVICE, id="one", **options)
    echo_pb2_grpc.add_EchoServicer_to_server(Echo("one"), server)
    server.serve(directory)
    return server


@pytest.fixture
def caller(chroot, tmp_path):
    """A caller in a process of its own that has called once."""
    processes = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", CALLER, chroot, str(tmp_path / "caller")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        processes.append(process)
        assert process.stdout.readline().strip() == "one"
        return process

    yield start
    for process in processes:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def test_callers_that_were_killed_do_not_hold_a_drain_up(directories, caller):
    server = serving(directories(), linger=WAIT)
    killed, living = caller(), caller()
    eventually(lambda: server.roster.remaining == 2)
    killed.kill()
    killed.wait()
    report = server.drain()
    assert (len(report.gone), len(report.confirmed), len(report.silent)) == (1, 1, 0)
    assert report.seconds < WAIT / 2
    assert living.poll() is None


def test_a_paused_caller_holds_a_drain_for_the_linger_only(directories, caller):
    server = serving(directories(), linger=2.0)
    paused = caller()
    eventually(lambda: server.roster.remaining == 1)
    paused.send_signal(signal.SIGSTOP)
    report = server.drain()
    assert (len(report.silent), len(report.confirmed), len(report.gone)) == (1, 0, 0)
    assert report.seconds < WAIT / 2


def test_a_plain_grpc_caller_is_counted_and_told_to_go_elsewhere(directories):
    server = serving(directories(), linger=1.5)
    with grpc.insecure_channel(server.replica.target, [("grpc.enable_retries", 0)]) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        stub.Echo(echo_pb2.EchoRequest(), timeout=WAIT)
        slow = stub.Echo.future(echo_pb2.EchoRequest(work=5.0), timeout=WAIT)
        eventually(lambda: server.roster.running == 1)
        left = server.stop()
        eventually(lambda: server.roster.phase is Phase.REFUSING)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Echo(echo_pb2.EchoRequest(), timeout=WAIT)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ("shoal-refused", "draining") in caught.value.trailing_metadata()
        assert slow.result(WAIT).server == "one"
        assert left.wait(WAIT)
    report = server.drain()
    assert (len(report.unknown), report.refused, report.unfinished) == (1, 1, 0)


def test_a_refused_call_that_is_not_idempotent_is_made_elsewhere(directories):
    """The list says that it still serves; only the refusal says that it is safe to go on."""
    own, other = directories(), directories()
    refusing = serving(own, linger=0.0)
    refusing._registration.update = lambda **_: None
    answering = shoal.Server(SERVICE, id="two")
    echo_pb2_grpc.add_EchoServicer_to_server(Echo("two"), answering)
    channel = other.channel(SERVICE, policy=shoal.RoundRobin())
    stub = echo_pb2_grpc.EchoStub(channel)
    running = stub.EchoOnce.future(echo_pb2.EchoRequest(work=5.0), timeout=WAIT)
    eventually(lambda: refusing.roster.running == 1)
    answering.serve(other)
    other.ready(SERVICE, WAIT, count=2)
    left = refusing.stop()
    eventually(lambda: refusing.roster.phase is Phase.REFUSING)
    answers = [stub.EchoOnce(echo_pb2.EchoRequest(), timeout=WAIT).server for _ in range(6)]
    assert answers == ["two"] * 6
    assert refusing.roster.refused >= 1
    assert running.result(WAIT).server == "one"
    assert left.wait(WAIT)
    answering.stop(0).wait(WAIT)


def test_who_finds_no_zookeeper_says_so_and_serves_nothing(directories):
    server = shoal.Server(SERVICE, id="one")
    with pytest.raises(shoal.RegistrationError, match="could not be announced"):
        server.serve(directories("127.0.0.1:1/nowhere"), timeout=0.5)
    assert not server.wait_for_termination(WAIT)


def test_a_drain_while_zookeeper_is_dead_ends(own_zookeeper, directories):
    server = serving(directories(own_zookeeper.hosts), linger=WAIT)
    own_zookeeper.kill()
    report = server.drain()
    assert report.seconds < WAIT / 2


def test_a_tls_port_goes_into_ssl_port(directories, chroot, operator):
    server = shoal.Server(SERVICE, id="one", linger=0.0)
    # Never connected to; only its announcement matters here.
    credentials = grpc.local_server_credentials()
    replica = server.serve(directories(), credentials=credentials)
    node = node_of(operator, chroot, "one")
    assert node["sslPort"] == replica.port
    assert node["port"] != replica.port
    server.stop(0).wait(WAIT)


def test_two_servers_of_one_process_leave_one_after_the_other(directories):
    directory = directories()
    servers = [shoal.Server(SERVICE, id=f"r{number}", linger=2.0) for number in range(2)]
    for server in servers:
        echo_pb2_grpc.add_EchoServicer_to_server(Echo(server.identity.id), server)
        server.serve(directory)
    caller = directories()
    stub = echo_pb2_grpc.EchoStub(caller.channel(SERVICE, policy=shoal.RoundRobin(), **NO_RETRIES))
    caller.ready(SERVICE, WAIT, count=2)
    stop = threading.Event()
    failures = []

    def call():
        while not stop.is_set():
            try:
                stub.EchoOnce(echo_pb2.EchoRequest(), timeout=WAIT)
            except grpc.RpcError as error:
                failures.append(error)
                return

    thread = threading.Thread(target=call)
    thread.start()
    eventually(lambda: all(server.roster.remaining for server in servers))
    report = servers[0].drain()
    stop.set()
    thread.join(WAIT)
    assert failures == []
    assert (len(report.confirmed), len(report.silent)) == (1, 0)
    servers[1].stop(0).wait(WAIT)
