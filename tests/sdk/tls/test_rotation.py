"""Certificates, and the authority itself, are replaced while calls go on: none fails.

One file, for blocking and asyncio callers and servers go through the same stations.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from contextlib import contextmanager

import pytest

import shoal
import shoal.aio
from shoal import renewal
from shoal import tls as tls_module
from shoal.identity import PeerIdentity
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.echo import Echo
from tests.support.waiting import eventually

DEADLINE = 30.0
REQUEST = pb.EchoRequest(payload=b"x")


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Files are looked at often."""
    monkeypatch.setattr(renewal, "POLL", 0.05)


class Seen:
    """Serial numbers of the certificates that callers have shown to a server."""

    def __init__(self) -> None:
        self.certificates: set[bytes] = set()

    def __call__(self, context) -> None:
        self.certificates.update(context.auth_context()["x509_pem_cert"])


class Load:
    """Calls without retries, one after the other on several threads, and a stream over it all."""

    def __init__(self, channel) -> None:
        self._stub = echo_pb2_grpc.EchoStub(channel)
        self._stop = threading.Event()
        self.failures: list[Exception] = []
        self.calls = 0
        self._threads = [threading.Thread(target=self._call) for _ in range(3)]
        self._stream = threading.Thread(target=self._follow)

    def _call(self):
        while not self._stop.is_set():
            try:
                self._stub.Echo(REQUEST, timeout=DEADLINE)
                self.calls += 1
            except Exception as error:  # noqa: BLE001 - judged at the end
                self.failures.append(error)
                return

    def _follow(self):
        """Lives through all of it on the connection that it began on."""

        def requests():
            while not self._stop.wait(0.05):
                yield REQUEST

        try:
            self.streamed = sum(1 for _ in self._stub.EchoBoth(requests(), timeout=DEADLINE * 2))
        except Exception as error:  # noqa: BLE001 - judged at the end
            self.failures.append(error)

    def __enter__(self):
        for each in (*self._threads, self._stream):
            each.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for each in (*self._threads, self._stream):
            each.join(DEADLINE)
            assert not each.is_alive()


class AioLoad:
    """The same by an asyncio channel on a loop of its own."""

    def __init__(self, directory, tls) -> None:
        self._directory, self._tls = directory, tls
        self.failures: list[Exception] = []
        self.calls = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with shoal.aio.Channel(self._directory, "echo", tls=self._tls, retry=None) as channel:
            self.channel = channel
            stub = echo_pb2_grpc.EchoStub(channel)
            self._ready.set()
            await asyncio.gather(*(self._call(stub) for _ in range(3)), self._follow(stub))

    async def _call(self, stub):
        while not self._stop.is_set():
            try:
                await stub.Echo(REQUEST, timeout=DEADLINE)
                self.calls += 1
            except Exception as error:  # noqa: BLE001 - judged at the end
                self.failures.append(error)
                return

    async def _follow(self, stub):
        async def requests():
            while not self._stop.is_set():
                yield REQUEST
                await asyncio.sleep(0.05)

        try:
            answers = [each async for each in stub.EchoBoth(requests(), timeout=DEADLINE * 2)]
            self.streamed = len(answers)
        except Exception as error:  # noqa: BLE001 - judged at the end
            self.failures.append(error)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


def nodes(channel):
    return list(channel.pool.balancer.snapshot.nodes)


@contextmanager
def fleet(kind, directory, certificates):
    """Two servers of a kind, each with what its callers have shown."""
    tls = certificates.of("echo")
    seen = [Seen(), Seen()]
    if kind == "blocking":
        servers = []
        for number, each in enumerate(seen):
            server = shoal.Server("echo", id=f"echo-{number}", linger=0.2, tls=tls)
            echo = Echo(server.identity.id)
            echo.script = each
            echo_pb2_grpc.add_EchoServicer_to_server(echo, server)
            server.serve(directory)
            servers.append(server)
        try:
            yield seen
        finally:
            for server in servers:
                assert server.stop(0).wait(DEADLINE)
        return

    ready, stop = threading.Event(), None
    loop = None

    async def run():
        nonlocal loop, stop
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        servers = []
        for number, each in enumerate(seen):
            server = shoal.aio.Server("echo", id=f"echo-{number}", linger=0.2, tls=tls)
            echo = Echo(server.identity.id)
            echo.script = each
            echo_pb2_grpc.add_EchoServicer_to_server(echo, server)
            await server.serve(directory)
            servers.append(server)
        ready.set()
        await stop.wait()
        await asyncio.gather(*(server.stop(0) for server in servers))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(DEADLINE)
    try:
        yield seen
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_no_call_fails_while_everything_is_replaced(kind, directory, certificates):
    authority = certificates.authority
    services = [PeerIdentity("echo"), PeerIdentity("api"), PeerIdentity("scheduler")]
    tls, aio_tls = certificates.of("api"), certificates.of("scheduler")

    def renew():
        for each in services:
            authority.issue(each)

    def taken():
        """What lies there now has been shown to both servers by both callers."""
        new = [each.certificate.read_bytes().strip() for each in (tls, aio_tls)]
        shown = [{each.strip() for each in one.certificates} for one in seen]
        return all(each in one for one in shown for each in new)

    with fleet(kind, directory, certificates) as seen:
        with (
            shoal.Channel(directory, "echo", tls=tls, retry=None) as channel,
            Load(channel) as load,
            AioLoad(directory, aio_tls) as aio_load,
        ):
            eventually(taken, what="calls with the first certificates")
            # All certificates.
            renew()
            eventually(taken, what="calls with the second certificates")
            # The authority: both are trusted for a time.
            before = nodes(channel) + nodes(aio_load.channel)
            authority.roll()
            eventually(
                lambda: not set(before) & {*nodes(channel), *nodes(aio_load.channel)},
                what="connections that trust both authorities",
            )
            renew()
            eventually(taken, what="calls with certificates of the new authority")
            before = nodes(channel) + nodes(aio_load.channel)
            authority.finish()
            eventually(
                lambda: not set(before) & {*nodes(channel), *nodes(aio_load.channel)},
                what="connections that trust the new authority only",
            )
            counted = load.calls, aio_load.calls
            eventually(lambda: load.calls > counted[0] + 20 and aio_load.calls > counted[1] + 20)
            # Old connections end with their last call: here the stream's.
            eventually(lambda: len(channel.pool._parting) <= 1, what="old connections closed")
        assert load.failures == []
        assert aio_load.failures == []
        assert load.streamed > 0
        assert aio_load.streamed > 0
        # What is known of a replica outlives its connections.
        assert load.calls > 100
    with pytest.raises(shoal.TlsError, match="no roll is under way"):
        authority.finish()


def test_what_is_known_of_a_replica_outlives_its_connection(serve, directory, certificates):
    serve(certificates.of("echo"))
    tls = certificates.of("api")
    with shoal.Channel(directory, "echo", tls=tls) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        for _ in range(5):
            stub.Echo(REQUEST, timeout=DEADLINE)
        (old,) = nodes(channel)
        certificates.of("api")
        eventually(lambda: nodes(channel) != [old], what="a new connection")
        (new,) = nodes(channel)
        assert new.calls == 5
        assert new.load is old.load
        assert new.health is old.health
        assert old.endpoint.closed or eventually(lambda: old.endpoint.closed)
        assert channel.snapshot().replicas[0].state == "ready"


def test_a_certificate_that_nobody_takes_breaks_no_connection_that_works(
    serve, directory, certificates, others, caplog, monkeypatch
):
    monkeypatch.setattr(renewal, "PATIENCE", 0.2)
    serve(certificates.of("echo"))
    tls = certificates.of("api")
    with shoal.Channel(directory, "echo", tls=tls, retry=None) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        stub.Echo(REQUEST, timeout=DEADLINE)
        (old,) = nodes(channel)
        good = [each.read_bytes() for each in (tls.authorities, tls.key, tls.certificate)]
        wrong = others.of("api")
        with caplog.at_level(logging.WARNING, "shoal.renewal"):
            replace(
                tls,
                [each.read_bytes() for each in (wrong.authorities, wrong.key, wrong.certificate)],
            )
            eventually(lambda: "takes no new connection" in caplog.text, what="a warning")
        assert nodes(channel) == [old]
        stub.Echo(REQUEST, timeout=DEADLINE)
        replace(tls, good)
        eventually(lambda: nodes(channel) != [old], what="a connection with what is right again")
        stub.Echo(REQUEST, timeout=DEADLINE)


def replace(tls, contents) -> None:
    for path, data in zip((tls.authorities, tls.key, tls.certificate), contents, strict=True):
        aside = path.with_suffix(".aside")
        aside.write_bytes(data)
        aside.replace(path)


def test_a_replica_hears_one_hello_and_one_goodbye_over_all_connections(
    serve, directory, certificates
):
    server = serve(certificates.of("echo"))
    tls = certificates.of("api")
    with shoal.Channel(directory, "echo", tls=tls) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        stub.Echo(REQUEST, timeout=DEADLINE)
        eventually(lambda: server.roster.remaining == 1, what="a hello")
        (old,) = nodes(channel)
        certificates.of("api")
        eventually(lambda: nodes(channel) != [old] and old.endpoint.closed)
        stub.Echo(REQUEST, timeout=DEADLINE)
        assert server.roster.remaining == 1
    eventually(lambda: server.roster.remaining == 0, what="a goodbye")
    assert server.drain().unknown == ()


@pytest.fixture
def begun(monkeypatch):
    """Connections that were begun beside others."""
    begun = []
    anew = renewal.Endpoint.anew

    def noted(endpoint):
        begun.append(anew(endpoint))
        return begun[-1]

    monkeypatch.setattr(renewal.Endpoint, "anew", noted)
    return begun


def spoil(tls, others) -> None:
    """Puts what nobody takes in place."""
    wrong = others.of("api")
    replace(tls, [each.read_bytes() for each in (wrong.authorities, wrong.key, wrong.certificate)])


def test_a_channel_that_is_closed_leaves_no_connection_in_the_making(
    serve, directory, certificates, others, begun
):
    serve(certificates.of("echo"))
    tls = certificates.of("api")
    with shoal.Channel(directory, "echo", tls=tls) as channel:
        echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=DEADLINE)
        spoil(tls, others)
        eventually(lambda: begun, what="a connection in the making")
    eventually(lambda: all(each.closed for each in begun), what="its end")


async def test_an_asyncio_channel_waits_for_the_end_of_connections_in_the_making(
    serve, directory, certificates, others, begun
):
    serve(certificates.of("echo"))
    tls = certificates.of("api")
    async with shoal.aio.Channel(directory, "echo", tls=tls) as channel:
        await echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=DEADLINE)
        spoil(tls, others)
        await asyncio.to_thread(eventually, lambda: begun)
    # Now, for the loop may be closed next.
    assert all(each.closed for each in begun)


async def test_no_event_loop_waits_for_the_files(serve, directory, certificates, monkeypatch):
    serve(certificates.of("echo"))
    tls = certificates.of("api")
    read, readers = tls_module._examined, []

    def noted(tls):
        readers.append(threading.current_thread())
        return read(tls)

    async with shoal.aio.Channel(directory, "echo", tls=tls) as channel:
        await echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=DEADLINE)
        monkeypatch.setattr(tls_module, "_examined", noted)
        before = nodes(channel)
        certificates.of("api")
        await asyncio.to_thread(eventually, lambda: nodes(channel) != before)
    assert readers
    assert threading.current_thread() not in readers


def test_no_set_is_judged_while_a_connection_takes_anothers_place(
    serve, directory, certificates, monkeypatch
):
    serve(certificates.of("echo"))
    tls = certificates.of("api")
    with shoal.Channel(directory, "echo", tls=tls) as channel:
        echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=DEADLINE)
        pool = channel.pool
        succeed, judged = pool.balancer.succeed, []

        def judge():
            judged.append(pool._judging.acquire(blocking=False))

        def meanwhile(node, endpoint):
            other = threading.Thread(target=judge)
            other.start()
            other.join()
            return succeed(node, endpoint)

        monkeypatch.setattr(pool.balancer, "succeed", meanwhile)
        before = nodes(channel)
        certificates.of("api")
        eventually(lambda: nodes(channel) != before, what="a new connection")
        assert judged == [False]


def test_a_channel_that_nobody_holds_is_not_held_by_its_files(certificates, serve, directory):
    server = serve(certificates.of("echo"))
    tls = certificates.of("api")
    lonely = FixedDirectory({"echo": [server.replica.target]}, tls=tls)
    channel = lonely.channel("echo")
    echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=DEADLINE)
    gone = weakref.ref(channel.pool)
    channel.pool.directory = None
    del channel, lonely

    def collected():
        gc.collect()
        return gone() is None

    eventually(collected, what="the pool's end")


def test_a_plain_channel_watches_no_files(directory, monkeypatch):
    monkeypatch.setattr(renewal.Renewal, "begin", lambda _: pytest.fail("a plain channel has none"))
    with shoal.Channel(directory, "echo"):
        pass
