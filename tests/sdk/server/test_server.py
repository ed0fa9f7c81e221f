"""The blocking server, with real grpc and a directory in memory.

One file, in the order of a server's life: it is made, serves, is announced, drains, ends.
"""

import errno
import os
import signal
import sys
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import shoal
from shoal.contracts import ServedContract
from shoal.drain import Phase
from shoal.refusal import refusal_in
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc
from tests.support.waiting import eventually

ECHO = "shoal.testing.v1.Echo"
WAIT = 30
REQUEST = echo_pb2.EchoRequest(payload=b"x")


def refused_codes(stub):
    """Sends one call of each kind; their codes and reasons."""
    calls = [
        stub.Echo.future(REQUEST, timeout=WAIT),
        stub.EchoDown(REQUEST, timeout=WAIT),
        stub.EchoUp.future(iter([REQUEST, REQUEST]), timeout=WAIT),
        stub.EchoBoth(iter([REQUEST, REQUEST]), timeout=WAIT),
    ]
    return [(call.code(), refusal_in(call.trailing_metadata())) for call in calls]


def held(server):
    """Has the server's calls wait for the returned event."""
    release = threading.Event()
    server.echo.script = lambda context: release.wait(WAIT)
    return release


def test_it_serves_and_announces_what_it_is(made, directory, stub_to):
    server = made(version="1.4", flavor="sql", zone="z1", host="host-1", weight=2.0,
                  metadata={"colour": "red"})  # fmt: skip
    replica = server.serve(directory)
    assert directory.watch("echo").replicas() == (replica,)
    assert (replica.id, replica.address, replica.version, replica.flavor) == (
        "one", "127.0.0.1", "1.4", "sql",
    )  # fmt: skip
    assert (replica.zone, replica.host, replica.weight) == ("z1", "host-1", 2.0)
    assert dict(replica.metadata) == {
        "colour": "red",
        "keepalive": "10",
        "protos": ECHO,
        "protos_digest": ServedContract.of([ECHO]).digest,
    }
    assert stub_to(replica.target).Echo(REQUEST, timeout=WAIT).server == "one"
    assert replica.target in repr(server)


def test_it_is_a_grpc_server(made, channel_to):
    server = made()
    assert isinstance(server, grpc.Server)
    handler = grpc.method_handlers_generic_handler(
        "a.B", {"C": grpc.unary_unary_rpc_method_handler(lambda request, context: request + b"!")}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert server.wait_for_termination(0.01)
    assert channel_to(f"127.0.0.1:{port}").unary_unary("/a.B/C")(b"hi", timeout=WAIT) == b"hi!"
    server.stop(None).wait(WAIT)
    assert not server.wait_for_termination(WAIT)


def test_ipv6(made, directory, stub_to):
    replica = made().serve(directory, bind="[::1]:0")
    assert replica.target.startswith("[::1]:")
    assert stub_to(replica.target).Echo(REQUEST, timeout=WAIT).server == "one"


def test_another_address_may_be_advertised(made, directory, stub_to):
    replica = made().serve(directory, bind="0.0.0.0:0", advertise="127.0.0.9")
    assert replica.address == "127.0.0.9"
    assert stub_to(replica.target).Echo(REQUEST, timeout=WAIT).server == "one"


def test_a_taken_port_is_an_error_that_names_it_and_announces_nothing(made, directory):
    port = made().serve(directory).port
    with pytest.raises(shoal.BindError, match=f"127.0.0.1:{port} can't be bound: Address already"):
        made(id="two").serve(directory, bind=f"127.0.0.1:{port}")
    assert [replica.id for replica in directory.watch("echo").replicas()] == ["one"]


def test_after_a_taken_port_the_same_server_may_take_another(made, directory):
    port = made().serve(directory).port
    second = made(id="two")
    with pytest.raises(shoal.BindError) as caught:
        second.serve(directory, bind=f"127.0.0.1:{port}")
    assert caught.value.errno == errno.EADDRINUSE
    assert second.serve(directory).port != port


def test_everywhere_is_refused_before_anything_is_bound(made, directory):
    with pytest.raises(ValueError, match="advertise="):
        made().serve(directory, bind="0.0.0.0:0")


def test_tls(made, directory, channel_to, tls):
    key, certificate = tls
    said = []
    announce = directory.announce
    directory.announce = lambda *a, **k: said.append(k["secure"]) or announce(*a, **k)
    replica = made().serve(directory, credentials=grpc.ssl_server_credentials([(key, certificate)]))
    assert said == [True]
    channel = channel_to(replica.target, grpc.ssl_channel_credentials(certificate))
    assert echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=WAIT).server == "one"


class Deaf(FixedDirectory):
    def announce(self, *_, **__):
        raise shoal.RegistrationError("nobody listens")


def test_who_cannot_be_announced_does_not_serve(made, stub_to):
    server = made()
    bound = []
    original = server.add_insecure_port
    server.add_insecure_port = lambda address: bound.append(original(address)) or bound[0]
    with pytest.raises(shoal.RegistrationError, match="nobody listens"):
        server.serve(Deaf())
    with pytest.raises(grpc.RpcError) as caught:
        stub_to(f"127.0.0.1:{bound[0]}").Echo(REQUEST, timeout=WAIT)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def health_of(stub, service=""):
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT).status


def test_health_is_serving_only_while_announced(made, directory, channel_to):
    server = made(linger=WAIT)
    port = server.add_insecure_port("127.0.0.1:0")
    target = f"127.0.0.1:{port}"
    health = health_pb2_grpc.HealthStub(channel_to(target))
    seen = []
    announce = directory.announce

    def watched(*arguments, **options):
        seen.extend(health_of(health, name) for name in ("", ECHO))
        return announce(*arguments, **options)

    directory.announce = watched
    server.serve(directory)
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        (health_pb2.HealthCheckResponse.NOT_SERVING),
    )
    assert seen == [not_serving] * 2
    assert [health_of(health, name) for name in ("", ECHO, "shoal.v1.Replica")] == [serving] * 3
    with pytest.raises(grpc.RpcError) as caught:
        health_of(health, "no.Such")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    # A caller that stays keeps the drain waiting, so that health can be looked at.
    replica_pb2_grpc.ReplicaStub(channel_to(target)).Hello(
        replica_pb2.HelloRequest(caller_id="c"), timeout=WAIT
    )
    left = server.stop()
    eventually(lambda: server.roster.phase is Phase.LEAVING)
    eventually(lambda: health_of(health) == not_serving)
    eventually(lambda: health_of(health, ECHO) == not_serving)
    replica_pb2_grpc.ReplicaStub(channel_to(target)).Released(
        replica_pb2.ReleasedRequest(caller_id="c"), timeout=WAIT
    )
    assert left.wait(WAIT)


def test_reflection_lists_what_is_served(made, directory, channel_to):
    replica = made().serve(directory)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel_to(replica.target))
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=WAIT)
    assert {service.name for service in answer.list_services_response.service} == {
        ECHO,
        "shoal.v1.Replica",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("package", ["grpc_health.v1", "grpc_reflection.v1alpha"])
def test_without_the_extra_it_says_what_to_install(package, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(package)]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"shoal\[server\]"):
        shoal.Server("echo")
    shoal.Server("echo", health=False, reflection=False)


def test_hello_says_who_is_there_and_needs_a_name(made, directory, channel_to):
    replica = made().serve(directory)
    stub = replica_pb2_grpc.ReplicaStub(channel_to(replica.target))
    answer = stub.Hello(replica_pb2.HelloRequest(caller_id="c"), timeout=WAIT)
    assert (answer.replica_id, answer.draining) == ("one", False)
    for call, request in (
        (stub.Hello, replica_pb2.HelloRequest()),
        (stub.Released, replica_pb2.ReleasedRequest()),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=WAIT)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "caller_id" in caught.value.details()
    stub.Released(replica_pb2.ReleasedRequest(caller_id="c"), timeout=WAIT)


class Journal(FixedDirectory):
    """Notes what a registration is told, and what the server does meanwhile."""

    def __init__(self, server, log):
        super().__init__()
        self.server, self.log = server, log

    def announce(self, *arguments, **options):
        registration = super().announce(*arguments, **options)
        update, withdraw = registration.update, registration.withdraw

        def updated(**changes):
            self.log.append(("update", changes, self.server.roster.phase))
            update(**changes)

        def withdrawn():
            self.log.append(("withdraw", self.server.roster.phase))
            withdraw()

        registration.update, registration.withdraw = updated, withdrawn
        return registration


def test_the_order_of_a_drain(made, stub_to):
    server = made(linger=0.5)
    log = []
    directory = Journal(server, log)
    replica = server.serve(directory)
    stub = stub_to(replica.target)
    stub.Echo(REQUEST, timeout=WAIT)
    release = held(server)
    running = stub.Echo.future(REQUEST, timeout=WAIT)
    eventually(lambda: server.roster.running == 1)
    left = server.stop()

    # Told the directory, it serves on …
    eventually(lambda: log)
    assert log == [("update", {"status": shoal.Status.DRAINING, "enabled": False}, Phase.LEAVING)]
    (seen,) = directory.watch("echo").replicas()
    assert not seen.routable
    # … then refuses, all kinds of calls, while the old one runs …
    eventually(lambda: server.roster.phase is Phase.REFUSING)
    assert refused_codes(stub) == [(grpc.StatusCode.UNAVAILABLE, "draining")] * 4
    assert not running.done()
    assert len(log) == 1
    # … finishes it, and leaves the directory last.
    release.set()
    assert running.result(WAIT).server == "one"
    assert left.wait(WAIT)
    assert log[1:] == [("withdraw", Phase.STOPPING)]
    assert directory.watch("echo").replicas() == ()
    report = server.drain()
    assert (report.refused, report.unfinished, len(report.unknown)) == (4, 0, 1)


def test_refused_handlers_never_ran(made, directory, stub_to):
    server = made(linger=0.0)
    stub = stub_to(server.serve(directory).target)
    release = held(server)
    running = stub.Echo.future(REQUEST, timeout=WAIT)
    eventually(lambda: server.roster.running == 1)
    left = server.stop()
    eventually(lambda: server.roster.phase is Phase.REFUSING)
    before = len(server.echo.seen)
    refused_codes(stub)
    assert len(server.echo.seen) == before
    release.set()
    running.result(WAIT)
    assert left.wait(WAIT)


def test_a_drain_with_every_thread_busy_still_hears_goodbyes_and_refuses(
    made, directory, stub_to, channel_to
):
    server = made(workers=1, linger=WAIT)
    replica = server.serve(directory)
    stub = stub_to(replica.target)
    replicas = replica_pb2_grpc.ReplicaStub(channel_to(replica.target))
    replicas.Hello(replica_pb2.HelloRequest(caller_id="c"), timeout=WAIT)
    release = held(server)
    running = stub.Echo.future(REQUEST, timeout=WAIT)
    eventually(lambda: server.roster.running == 1)
    left = server.stop()
    eventually(lambda: server.roster.phase is Phase.LEAVING)
    health = health_pb2_grpc.HealthStub(channel_to(replica.target))
    eventually(lambda: health_of(health) == health_pb2.HealthCheckResponse.NOT_SERVING)
    replicas.Released(replica_pb2.ReleasedRequest(caller_id="c"), timeout=WAIT)
    eventually(lambda: server.roster.phase is Phase.REFUSING)
    assert refused_codes(stub)[0] == (grpc.StatusCode.UNAVAILABLE, "draining")
    release.set()
    running.result(WAIT)
    assert left.wait(WAIT)
    assert len(server.drain().confirmed) == 1


def test_the_grace_cuts_off_what_does_not_end(made, directory, stub_to):
    server = made(grace=0.6)
    release = held(server)
    stub = stub_to(server.serve(directory).target)
    running = stub.Echo.future(REQUEST, timeout=WAIT)
    eventually(lambda: server.roster.running == 1)
    assert server.drain().unfinished == 1
    assert running.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    release.set()


def test_a_watched_health_does_not_hold_the_drain_up(made, directory, channel_to):
    server = made(grace=WAIT)
    replica = server.serve(directory)
    health = health_pb2_grpc.HealthStub(channel_to(replica.target))
    states = health.Watch(health_pb2.HealthCheckRequest(service=ECHO))
    assert next(states).status == health_pb2.HealthCheckResponse.SERVING
    report = server.drain()
    assert report.unfinished == 0
    assert report.seconds < WAIT / 2
    assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_dead_caller_does_not_hold_the_drain_up(made, directory, channel_to):
    server = made(linger=WAIT)
    replica = server.serve(directory)
    channel = channel_to(replica.target)
    replica_pb2_grpc.ReplicaStub(channel).Hello(
        replica_pb2.HelloRequest(caller_id="dead"), timeout=WAIT
    )
    channel.close()
    report = server.drain()
    assert (len(report.gone), len(report.silent), len(report.confirmed)) == (1, 0, 0)
    assert report.seconds < WAIT / 2


def test_a_drain_is_told_once_for_people_and_once_for_programs(made, directory, channel_to, caplog):
    server = made(linger=1.5)
    replica = server.serve(directory)
    stub = replica_pb2_grpc.ReplicaStub(channel_to(replica.target))
    stub.Hello(replica_pb2.HelloRequest(caller_id="nightly@box.7.1"), timeout=WAIT)
    with caplog.at_level("INFO", logger="shoal"):
        report = server.drain()
        server.drain()
    (line,) = [each for each in caplog.records if each.name == "shoal.drain.report"]
    assert shoal.DrainReport.from_json(line.getMessage()) == report
    assert f'"replica": "{replica.id}"' in line.getMessage()
    (said,) = [each.getMessage() for each in caplog.records if "drained in" in each.getMessage()]
    assert "1 silent (nightly@box.7.1 at ipv4:127.0.0.1:" in said


def test_a_living_caller_is_waited_for_and_then_named(made, directory, channel_to):
    server = made(linger=1.5)
    replica = server.serve(directory)
    replica_pb2_grpc.ReplicaStub(channel_to(replica.target)).Hello(
        replica_pb2.HelloRequest(caller_id="stuck"), timeout=WAIT
    )
    report = server.drain()
    assert (len(report.gone), len(report.silent)) == (0, 1)
    assert report.silent[0].peer.startswith("ipv4:127.0.0.1:")
    assert report.seconds >= 1.5


def test_shoal_callers_release_a_draining_server(made, directory):
    server = made(linger=WAIT)
    server.serve(directory)
    with directory.channel("echo", retry=None) as channel:
        echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=WAIT)
        eventually(lambda: server.roster.remaining == 1, what="the hello")
        report = server.drain()
    assert (len(report.confirmed), len(report.silent), len(report.unknown)) == (1, 0, 0)


class Away(FixedDirectory):
    def announce(self, *arguments, **options):
        registration = super().announce(*arguments, **options)

        def update(**_):
            raise shoal.RegistrationError("ZooKeeper is away")

        registration.update = update
        return registration


def test_a_drain_without_the_directory_is_short_and_says_so(made, channel_to, caplog):
    server = made(linger=WAIT)
    replica = server.serve(Away())
    replica_pb2_grpc.ReplicaStub(channel_to(replica.target)).Hello(
        replica_pb2.HelloRequest(caller_id="c"), timeout=WAIT
    )
    assert server.drain().seconds < WAIT / 2
    assert "drains without the directory: ZooKeeper is away" in caplog.text


def test_drain_is_idempotent_and_stop_after_it_is_at_once(made, directory):
    server = made()
    server.serve(directory)
    report = server.drain()
    assert server.drain() is report
    assert server.stop().wait(WAIT)
    assert not server.wait_for_termination(WAIT)


def test_status_is_told_and_does_not_undo_a_drain(made, directory):
    server = made()
    with pytest.raises(RuntimeError, match="before it is announced"):
        server.set_status(shoal.Status.BUSY)
    server.serve(directory)
    with pytest.raises(ValueError, match="drains by drain"):
        server.set_status(shoal.Status.DRAINING)
    server.set_status(shoal.Status.BUSY)
    (replica,) = directory.watch("echo").replicas()
    assert (replica.status, replica.routable) == (shoal.Status.BUSY, True)
    assert server.replica == replica
    server.roster.hello("stays", "ipv4:127.0.0.1:1")
    server.roster._connections = lambda: {"ipv4:127.0.0.1:1"}
    left = server.stop()
    eventually(lambda: not directory.watch("echo").replicas()[0].routable)
    server.set_status(shoal.Status.UP)
    assert directory.watch("echo").replicas()[0].status is shoal.Status.DRAINING
    assert left.wait(WAIT)


def run_in_thread(server, directory, **options):
    reports = []
    ready = threading.Event()
    thread = threading.Thread(
        target=lambda: reports.append(server.run(directory, ready=lambda _: ready.set(), **options))
    )
    thread.start()
    assert ready.wait(WAIT)
    return thread, reports


def test_run_ends_by_stop_from_another_thread_and_leaves_signals_alone(made, directory):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    server = made()
    thread, reports = run_in_thread(server, directory)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert server.stop().wait(WAIT)
    thread.join(WAIT)
    assert reports == [server.drain()]


def test_run_ends_when_somebody_else_drains(made, directory):
    server = made()
    thread, reports = run_in_thread(server, directory)
    report = server.drain()
    thread.join(WAIT)
    assert reports == [report]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_drains_by_signal_and_puts_handlers_back(made, directory, number):
    def mine(*_):
        raise AssertionError("the signal came after run had ended")

    before = signal.signal(number, mine)
    try:
        report = made().run(directory, ready=lambda _: os.kill(os.getpid(), number))
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)
    assert report.unfinished == 0
    assert directory.watch("echo").replicas() == ()


def test_a_second_signal_hurries(made, directory, channel_to):
    server = made(linger=WAIT, grace=WAIT)

    def ready(replica):
        replica_pb2_grpc.ReplicaStub(channel_to(replica.target)).Hello(
            replica_pb2.HelloRequest(caller_id="stuck"), timeout=WAIT
        )
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    report = server.run(directory, ready=ready)
    assert len(report.silent) == 1
    assert report.seconds < WAIT / 2


def test_an_error_in_ready_still_drains(made, directory):
    def ready(_):
        raise LookupError("no place to write the port to")

    with pytest.raises(LookupError):
        made().run(directory, ready=ready)
    assert directory.watch("echo").replicas() == ()


def test_interceptors_of_the_user_still_run(directory, channel_to, made):
    seen = []

    class Note(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):
            seen.append(details.method)
            return continuation(details)

    replica = made(interceptors=[Note()]).serve(directory)
    echo_pb2_grpc.EchoStub(channel_to(replica.target)).Echo(REQUEST, timeout=WAIT)
    assert seen == [f"/{ECHO}/Echo"]


def test_calls_are_counted_while_they_run_of_all_kinds(made, directory, stub_to):
    server = made()
    release = held(server)
    stub = stub_to(server.serve(directory).target)
    calls = [
        stub.Echo.future(REQUEST, timeout=WAIT),
        stub.EchoDown(REQUEST, timeout=WAIT),
        stub.EchoUp.future(iter([REQUEST]), timeout=WAIT),
        stub.EchoBoth(iter([REQUEST]), timeout=WAIT),
    ]
    eventually(lambda: server.roster.running == 4)
    calls[1].cancel()
    eventually(lambda: server.roster.running == 3)
    release.set()
    for call in (calls[0], calls[2]):
        call.result(WAIT)
    assert len(list(calls[3])) == 1
    eventually(lambda: server.roster.running == 0)


def test_an_unknown_method_is_unimplemented(made, directory, channel_to):
    replica = made().serve(directory)
    with pytest.raises(grpc.RpcError) as caught:
        channel_to(replica.target).unary_unary("/no.Such/Method")(b"", timeout=WAIT)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_descriptors_that_are_too_large_are_said_before_anything_is_bound(
    made, directory, monkeypatch
):
    monkeypatch.setattr("shoal.contracts.served.MOST_PACKED", 10)
    server = made()
    server.add_insecure_port = None
    with pytest.raises(shoal.ContractError, match="at most 10 are published"):
        server.serve(directory)
    quiet = made(id="two", contract=False)
    assert "protos_digest" not in quiet.serve(directory).metadata
