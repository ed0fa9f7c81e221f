"""A blocking server that drains: in which order, for whom it waits, and what it tells."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import shoal
from shoal.drain import Phase
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2_grpc
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc
from tests.sdk.server.support import ECHO, REQUEST, WAIT, health_of, held, refused_codes
from tests.support.waiting import eventually


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
