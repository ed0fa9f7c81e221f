"""The asyncio server, with real grpc.aio and a directory in memory."""

import asyncio
import os
import signal
import socket
import threading

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import shoal
import shoal.aio
from shoal.contracts import ServedContract
from shoal.drain import Phase
from shoal.refusal import refusal_in
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc
from tests.support.replica import AioEcho

ECHO = "shoal.testing.v1.Echo"
WAIT = 30
REQUEST = echo_pb2.EchoRequest(payload=b"x")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HeldEcho(AioEcho):
    """Answers when it is let go, if it is held."""

    def __init__(self):
        super().__init__("one")
        self.go = asyncio.Event()
        self.go.set()

    async def _answer(self, request, context):
        await self.go.wait()
        return await super()._answer(request, context)


class BlockingEcho(echo_pb2_grpc.EchoServicer):
    """Handlers that are not coroutines."""

    def __init__(self):
        self.go = threading.Event()

    def Echo(self, request, context):
        assert self.go.wait(WAIT)
        return echo_pb2.EchoResponse(payload=request.payload)

    def EchoDown(self, request, context):
        for _ in range(2):
            assert self.go.wait(WAIT)
            yield echo_pb2.EchoResponse(payload=request.payload)


async def soon(condition):
    """Asks until it holds."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def made():
    servers = []

    def make(echo=None, **options):
        server = shoal.aio.Server("echo", **{"id": "one", "linger": 0.3, "grace": 20.0, **options})
        server.echo = echo or HeldEcho()
        echo_pb2_grpc.add_EchoServicer_to_server(server.echo, server)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.echo.go.set()
        await server.stop(0)


@pytest.fixture
async def channel_to():
    channels = []

    def make(target):
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        channels.append(grpc.aio.insecure_channel(target, options))
        return channels[-1]

    yield make
    for channel in channels:
        await channel.close()


@pytest.fixture
def directory():
    return FixedDirectory()


async def hello(channel, caller_id="c"):
    request = replica_pb2.HelloRequest(caller_id=caller_id)
    return await replica_pb2_grpc.ReplicaStub(channel).Hello(request, timeout=WAIT)


async def released(channel, caller_id="c"):
    request = replica_pb2.ReleasedRequest(caller_id=caller_id)
    return await replica_pb2_grpc.ReplicaStub(channel).Released(request, timeout=WAIT)


async def health_of(channel, service=""):
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health_pb2_grpc.HealthStub(channel).Check(request, timeout=WAIT)).status


async def requests():
    yield REQUEST


def one_of_each_kind(channel):
    stub = echo_pb2_grpc.EchoStub(channel)
    return [
        stub.Echo(REQUEST, timeout=WAIT),
        stub.EchoDown(REQUEST, timeout=WAIT),
        stub.EchoUp(requests(), timeout=WAIT),
        stub.EchoBoth(requests(), timeout=WAIT),
    ]


async def refused(channel):
    return [
        (await call.code(), refusal_in(await call.trailing_metadata()))
        for call in one_of_each_kind(channel)
    ]


async def test_it_serves_announces_and_is_a_grpc_server(made, directory, channel_to):
    server = made(version="1.4", metadata={"colour": "red"})
    assert isinstance(server, grpc.aio.Server)
    replica = await server.serve(directory, bind="[::1]:0")
    assert directory.watch("echo").replicas() == (replica,)
    assert dict(replica.metadata) == {
        "colour": "red",
        "keepalive": "10",
        "protos": ECHO,
        "protos_digest": ServedContract.of([ECHO]).digest,
    }
    answer = await echo_pb2_grpc.EchoStub(channel_to(replica.target)).Echo(REQUEST, timeout=WAIT)
    assert answer.server == "one"
    assert await server.wait_for_termination(0.01)
    assert "shoal.aio.Server echo one" in repr(server)


async def test_a_server_that_was_only_started_stops_as_grpcs(made, channel_to):
    server = made()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    assert await health_of(channel_to(f"127.0.0.1:{port}")) == NOT_SERVING
    await server.stop(None)
    assert not await server.wait_for_termination(WAIT)


async def test_a_taken_port_is_an_error_that_names_it(made, directory):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(shoal.BindError, match=f"{address} can't be bound: Address already"):
            await made().serve(directory, bind=address)
    assert directory.watch("echo").replicas() == ()


async def test_everywhere_needs_an_address_to_advertise(made, directory):
    with pytest.raises(ValueError, match="advertise="):
        await made().serve(directory, bind="[::]:0")


class Deaf(FixedDirectory):
    def announce(self, *_, **__):
        raise shoal.RegistrationError("nobody listens")


async def test_who_cannot_be_announced_does_not_serve(made):
    server = made()
    with pytest.raises(shoal.RegistrationError, match="nobody listens"):
        await server.serve(Deaf())
    assert not await server.wait_for_termination(WAIT)


async def test_reflection_lists_what_is_served(made, directory, channel_to):
    replica = await made().serve(directory)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel_to(replica.target))

    async def ask():
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    answers = [answer async for answer in stub.ServerReflectionInfo(ask(), timeout=WAIT)]
    assert {service.name for service in answers[0].list_services_response.service} == {
        ECHO,
        "shoal.v1.Replica",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_the_order_of_a_drain(made, directory, channel_to):
    server = made(linger=WAIT)
    replica = await server.serve(directory)
    channel = channel_to(replica.target)
    assert await health_of(channel) == SERVING
    assert await health_of(channel, ECHO) == SERVING
    assert (await hello(channel)).replica_id == "one"
    server.echo.go.clear()
    running = echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=WAIT)
    await soon(lambda: server.roster.running == 1)
    draining = asyncio.create_task(server.drain())

    # Told the directory, it serves on until the caller has released it …
    await soon(lambda: not directory.watch("echo").replicas()[0].routable)
    assert server.roster.phase is Phase.LEAVING
    assert await health_of(channel) == NOT_SERVING
    assert await health_of(channel, ECHO) == NOT_SERVING
    assert (await hello(channel)).draining
    await released(channel)
    # … then refuses, all kinds of calls, while the old one runs …
    await soon(lambda: server.roster.phase is Phase.REFUSING)
    assert await refused(channel) == [(grpc.StatusCode.UNAVAILABLE, "draining")] * 4
    assert not running.done()
    assert len(directory.watch("echo").replicas()) == 1
    # … finishes it, and leaves the directory last.
    server.echo.go.set()
    assert (await running).server == "one"
    report = await draining
    assert directory.watch("echo").replicas() == ()
    assert (len(report.confirmed), report.refused, report.unfinished) == (1, 4, 0)
    assert await server.drain() is report


async def test_calls_are_counted_while_they_run_of_all_kinds(made, directory, channel_to):
    server = made()
    replica = await server.serve(directory)
    server.echo.go.clear()
    calls = one_of_each_kind(channel_to(replica.target))
    # A handler that collects requests first answers at once.
    await soon(lambda: server.roster.running == 3)
    calls[1].cancel()
    await soon(lambda: server.roster.running == 2)
    server.echo.go.set()
    await calls[0]
    await calls[2]
    assert len([answer async for answer in calls[3]]) == 1
    await soon(lambda: server.roster.running == 0)


async def test_handlers_that_are_no_coroutines_are_counted_and_finished(
    made, directory, channel_to
):
    server = made(BlockingEcho())
    replica = await server.serve(directory)
    stub = echo_pb2_grpc.EchoStub(channel_to(replica.target))
    unary, stream = stub.Echo(REQUEST, timeout=WAIT), stub.EchoDown(REQUEST, timeout=WAIT)
    await soon(lambda: server.roster.running == 2)
    draining = asyncio.create_task(server.drain())
    await soon(lambda: server.roster.phase is Phase.REFUSING)
    server.echo.go.set()
    assert (await unary).payload == b"x"
    assert len([answer async for answer in stream]) == 2
    report = await draining
    assert (len(report.unknown), report.unfinished) == (1, 0)


async def test_the_grace_cuts_off_what_does_not_end(made, directory, channel_to):
    server = made(grace=0.6)
    replica = await server.serve(directory)
    server.echo.go.clear()
    running = echo_pb2_grpc.EchoStub(channel_to(replica.target)).Echo(REQUEST, timeout=WAIT)
    await soon(lambda: server.roster.running == 1)
    assert (await server.drain()).unfinished == 1
    assert await running.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


async def test_a_watched_health_does_not_hold_the_drain_up(made, directory, channel_to):
    server = made(grace=WAIT)
    replica = await server.serve(directory)
    health = health_pb2_grpc.HealthStub(channel_to(replica.target))
    states = health.Watch(health_pb2.HealthCheckRequest(service=ECHO))
    assert (await states.read()).status == SERVING
    report = await server.drain()
    assert report.unfinished == 0
    assert report.seconds < WAIT / 2


async def test_a_dead_caller_does_not_hold_the_drain_up(made, directory, channel_to):
    server = made(linger=WAIT)
    replica = await server.serve(directory)
    channel = channel_to(replica.target)
    await hello(channel, "dead")
    await channel.close()
    report = await server.drain()
    assert (len(report.gone), len(report.silent)) == (1, 0)
    assert report.seconds < WAIT / 2


async def test_status_is_told_and_does_not_undo_a_drain(made, directory):
    server = made()
    with pytest.raises(RuntimeError, match="before it is announced"):
        server.set_status(shoal.Status.BUSY)
    await server.serve(directory)
    server.set_status(shoal.Status.BUSY)
    assert directory.watch("echo").replicas()[0].status is shoal.Status.BUSY
    draining = asyncio.create_task(server.drain())
    await soon(lambda: not directory.watch("echo").replicas()[0].routable)
    server.set_status(shoal.Status.UP)
    assert directory.watch("echo").replicas()[0].status is shoal.Status.DRAINING
    await draining


async def started(server, directory):
    """Runs it; the task, when it is announced."""
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(directory, ready=lambda _: ready.set()))
    async with asyncio.timeout(WAIT):
        await ready.wait()
    return running


async def test_run_ends_by_stop(made, directory):
    server = made()
    running = await started(server, directory)
    await server.stop()
    assert await running is await server.drain()


async def test_run_ends_from_another_thread(made, directory):
    server = made()
    running = await started(server, directory)
    await asyncio.to_thread(server.end)
    assert (await running).unfinished == 0


async def test_run_drains_by_signal_and_puts_handlers_back(made, directory):
    def mine(*_):
        raise AssertionError("the signal came after run had ended")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        running = await started(made(), directory)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await running).unfinished == 0
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_second_signal_hurries(made, directory, channel_to):
    server = made(linger=WAIT, grace=WAIT)
    running = await started(server, directory)
    await hello(channel_to(server.replica.target), "stuck")
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(lambda: server.roster.phase is Phase.LEAVING)
    os.kill(os.getpid(), signal.SIGTERM)
    report = await running
    assert len(report.silent) == 1
    assert report.seconds < WAIT / 2


async def test_a_cancelled_run_still_leaves_the_directory(made, directory):
    server = made()
    running = await started(server, directory)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert directory.watch("echo").replicas() == ()


async def test_interceptors_of_the_user_still_run(made, directory, channel_to):
    seen = []

    class Note(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation, details):
            seen.append(details.method)
            return await continuation(details)

    replica = await made(interceptors=[Note()]).serve(directory)
    await echo_pb2_grpc.EchoStub(channel_to(replica.target)).Echo(REQUEST, timeout=WAIT)
    assert seen == [f"/{ECHO}/Echo"]
