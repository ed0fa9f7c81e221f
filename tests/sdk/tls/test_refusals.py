"""Who is refused, by whom, and with which words; and that the valid are not."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import grpc
import pytest

import shoal
import shoal.aio
from shoal.aio.guard import AioGuard
from shoal.authority import Authority
from shoal.doors import PLAIN_ONLY, TLS_ONLY, Speaks
from shoal.guard import Door, Guard
from shoal.identity import PeerIdentity
from shoal.testing import FixedDirectory
from shoal.tls import Tls, TlsFiles
from shoal_balancer import Replica
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.echo import Echo, EchoServer

DEADLINE = 30.0
REQUEST = pb.EchoRequest(payload=b"x")


def call(directory, tls, service="echo", **options):
    """One call without retries, blocking."""
    with shoal.Channel(directory, service, tls=tls, retry=None, **options) as channel:
        return echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=DEADLINE)


def call_aio(directory, tls, service="echo", **options):
    async def run():
        async with shoal.aio.Channel(directory, service, tls=tls, retry=None, **options) as channel:
            return await echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=DEADLINE)

    return asyncio.run(run())


@pytest.fixture(params=[call, call_aio], ids=["blocking", "asyncio"])
def called(request):
    return request.param


@pytest.fixture(params=["blocking", "asyncio"])
def server(request, directory, certificates):
    """A server of service echo, of either kind, that lets everybody with a certificate in."""
    tls = certificates.of("echo")
    if request.param == "blocking":
        made = shoal.Server("echo", linger=0.2, tls=tls)
        echo_pb2_grpc.add_EchoServicer_to_server(Echo("echo"), made)
        made.serve(directory)
        try:
            yield made
        finally:
            assert made.stop(0).wait(30)
        return
    with AioServing(directory, tls) as made:
        yield made


class AioServing:
    """An asyncio server on a loop of its own."""

    def __init__(self, directory, tls, **options) -> None:
        self._directory, self._tls, self._options = directory, tls, options
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self):
        self._server = shoal.aio.Server("echo", linger=0.2, tls=self._tls, **self._options)
        echo_pb2_grpc.add_EchoServicer_to_server(Echo("echo"), self._server)
        self._loop = asyncio.get_running_loop()
        await self._server.run(self._directory, ready=lambda _: self._ready.set())

    @property
    def replica(self):
        return self._server.replica

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._server.stop(0), self._loop)
        self._thread.join(30)
        assert not self._thread.is_alive()


def says(error) -> str:
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    return error.value.details()


def test_who_has_a_certificate_may_call(server, called, directory, certificates):
    assert called(directory, certificates.of("api")).server == "echo"
    assert called(directory, certificates.user("alice")).server == "echo"


def raw(server, credentials):
    """A call with grpc's own credentials, as somebody would who has no use for our rules."""
    options = [("grpc.ssl_target_name_override", "echo.shoal.internal")]
    target = server.replica.target
    with (
        grpc.secure_channel(target, credentials, options)
        if credentials
        else grpc.insecure_channel(target)
    ) as channel:
        return echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=DEADLINE)


def test_a_stranger_without_a_certificate_is_refused(server, certificates):
    authorities = certificates.of("api").authorities.read_bytes()
    with pytest.raises(grpc.RpcError) as error:
        raw(server, grpc.ssl_channel_credentials(authorities))
    assert "Socket closed" in says(error) or "reset" in says(error)


def test_a_plain_text_client_is_refused(server):
    with pytest.raises(grpc.RpcError) as error:
        raw(server, None)
    assert "Echo" not in says(error)


def test_a_caller_of_shoal_without_a_certificate_is_told_at_once(server, called, directory):
    with pytest.raises(grpc.RpcError) as error:
        called(directory, None)
    assert TLS_ONLY in says(error)


def test_a_certificate_of_another_authority_is_refused(
    server, called, directory, certificates, others, tmp_path
):
    mine, theirs = certificates.of("api"), others.of("api")
    # Trusts the server, but shows what the server does not trust.
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(mine.authorities.read_bytes() + theirs.authorities.read_bytes())
    with pytest.raises(grpc.RpcError) as error:
        called(directory, Tls(theirs.certificate, theirs.key, bundle))
    assert "it may not take this caller's certificate" in says(error)


def test_an_expired_certificate_is_refused_by_the_server(server, certificates):
    tls = certificates.expired("api")
    credentials = grpc.ssl_channel_credentials(
        tls.authorities.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    with pytest.raises(grpc.RpcError) as error:
        raw(server, credentials)
    assert "Socket closed" in says(error) or "reset" in says(error)


def test_an_expired_certificate_is_refused_where_it_lies(called, directory, certificates):
    with pytest.raises(shoal.TlsError, match="has expired: renew it"):
        called(directory, certificates.expired("api"))
    with pytest.raises(shoal.TlsError, match="has expired"):
        shoal.Server("echo", tls=certificates.expired("echo"))


def announced(directory, service, port) -> None:
    directory.set(service, [Replica("a", "127.0.0.1", port, ssl_port=port)])


def test_another_services_certificate_is_refused(server, called, directory, certificates):
    # Whoever can write the directory sends callers of registry to a server of echo.
    announced(directory, "registry", server.replica.port)
    with pytest.raises(grpc.RpcError) as error:
        called(directory, certificates.of("api"), "registry")
    assert "its certificate is not that of service 'registry'" in says(error)


def test_a_server_of_an_unknown_authority_is_refused(server, called, directory, others):
    with pytest.raises(grpc.RpcError) as error:
        called(directory, others.of("api"))
    assert "of no authority that this caller trusts" in says(error)


def test_an_expired_server_is_refused(called, directory, certificates):
    tls = certificates.expired("echo")
    credentials = grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())]
    )
    server = shoal.Server("echo", linger=0.2)
    echo_pb2_grpc.add_EchoServicer_to_server(Echo("echo"), server)
    server.serve(directory, credentials=credentials)
    try:
        with pytest.raises(grpc.RpcError) as error:
            called(directory, certificates.of("api"))
        assert "its certificate has expired" in says(error)
    finally:
        assert server.stop(0).wait(30)


def test_a_plain_text_server_is_refused(called, directory, certificates):
    with EchoServer("plain") as plain:
        # One that says so is not even asked; one that lies is found out.
        directory.set("echo", [plain.target])
        with pytest.raises(grpc.RpcError) as error:
            called(directory, certificates.of("api"))
        assert PLAIN_ONLY in says(error)
        announced(directory, "echo", plain.port)
        with pytest.raises(grpc.RpcError) as error:
            called(directory, certificates.of("api"))
        assert "it speaks plain text at this port" in says(error)
        assert plain.seen == []


def test_a_replica_with_two_doors_is_called_at_the_right_one(
    server, called, directory, certificates
):
    with EchoServer("plain") as plain:
        both = Replica("a", "127.0.0.1", plain.port, ssl_port=server.replica.port)
        directory.set("echo", [both])
        assert called(directory, certificates.of("api")).server == "echo"
        assert called(directory, None).server == "plain"


def test_a_server_without_its_own_certificate_does_not_start(directory, certificates):
    server = shoal.Server("echo", tls=certificates.of("api"))
    with pytest.raises(
        shoal.TlsError, match=r"callers of 'echo' want one of echo\.shoal\.internal"
    ):
        server.serve(directory)


def test_a_server_shows_its_certificate_on_when_another_services_is_put_in_its_place(
    server, called, directory, certificates, caplog
):
    own, others = certificates.of("echo"), certificates.of("registry")
    for mine, theirs in zip(
        (own.authorities, own.key, own.certificate),
        (others.authorities, others.key, others.certificate),
        strict=True,
    ):
        mine.write_bytes(theirs.read_bytes())
    # Read by the handshakes of these.
    for _ in range(2):
        assert called(directory, certificates.of("api")).server == "echo"
    assert caplog.text.count("callers of 'echo' want one of echo.shoal.internal") == 1
    certificates.of("echo")
    assert called(directory, certificates.of("api")).server == "echo"


@pytest.fixture(params=["blocking", "asyncio"])
def guarded(request, directory, certificates):
    """A server that only api may call."""
    tls = certificates.of("echo")
    if request.param == "blocking":
        made = shoal.Server("echo", linger=0.2, tls=tls, callers={"api"})
        echo_pb2_grpc.add_EchoServicer_to_server(Echo("echo"), made)
        made.serve(directory)
        try:
            yield made
        finally:
            assert made.stop(0).wait(30)
        return
    with AioServing(directory, tls, callers={"api"}) as made:
        yield made


@pytest.mark.parametrize("method", ["Echo", "EchoDown", "EchoUp", "EchoBoth"])
def test_only_services_that_may_call_are_let_in(guarded, directory, certificates, method):
    def ask(tls):
        with shoal.Channel(directory, "echo", tls=tls, retry=None) as channel:
            sent = iter([REQUEST]) if method in ("EchoUp", "EchoBoth") else REQUEST
            answer = getattr(echo_pb2_grpc.EchoStub(channel), method)(sent, timeout=DEADLINE)
            return answer if isinstance(answer, pb.EchoResponse) else next(answer)

    assert ask(certificates.of("api")).server == "echo"
    for tls, name in (
        (certificates.of("scheduler"), "service 'scheduler'"),
        # A user of the name of a service is no service.
        (certificates.user("api"), "user 'api'"),
    ):
        with pytest.raises(grpc.RpcError) as error:
            ask(tls)
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error.value.details() == f"{name} may not call this"


def test_names_are_the_same_in_small_letters_and_in_large(tmp_path):
    authority = Authority.create(tmp_path / "acme", domain="Shoal.Acme.example")
    tls = Tls.of(authority.issue(PeerIdentity("Api")), domain="Shoal.Acme.example")
    assert tls.certificate.parent.name == "api"

    class Context:
        """A handler's, of a call with that certificate."""

        def auth_context(self):
            return {"peer_dns": [name.encode() for name in TlsFiles(tls).current().names]}

    assert Door.of({"API"}, tls).refusal(Context()) is None
    assert Door.of({"registry"}, tls).refusal(Context()) == "service 'api' may not call this"


def test_bytes_that_are_no_message_are_answered_so_also_where_not_everybody_may_call(
    guarded, directory, certificates
):
    with (
        shoal.Channel(directory, "echo", tls=certificates.of("api"), retry=None) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        channel.unary_unary("/shoal.testing.v1.Echo/Echo")(b"\x0a\xff\xff\xff", timeout=DEADLINE)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_guard_leaves_what_can_not_be_read_to_the_gate():
    handler = grpc.unary_unary_rpc_method_handler(
        lambda request, _: request, pb.EchoRequest.FromString
    )
    door = Door(frozenset(), "shoal.internal")
    details = SimpleNamespace(method="/shoal.testing.v1.Echo/Echo")

    async def found(_):
        return handler

    guarded = Guard(door).intercept_service(lambda _: handler, details)
    assert guarded.request_deserializer is handler.request_deserializer
    guarded = await AioGuard(door).intercept_service(found, details)
    assert guarded.request_deserializer is handler.request_deserializer


def test_callers_without_certificates_make_no_sense():
    with pytest.raises(ValueError, match="give the server tls"):
        shoal.Server("echo", callers={"api"})


def test_a_handler_hears_who_calls(serve, directory, certificates):
    server = serve(certificates.of("echo"))
    heard = []
    server.echo.script = lambda context: heard.append(shoal.peer_identity(context))
    call(directory, certificates.of("api"))
    call(directory, certificates.user("alice"))
    assert heard == [shoal.PeerIdentity("api"), shoal.PeerIdentity("alice", user=True)]


def test_without_tls_nobody_is_anybody(directory):
    with EchoServer("plain") as plain:
        heard = []
        plain.servicer.script = lambda context: heard.append(shoal.peer_identity(context))
        directory.set("echo", [plain.target])
        call(directory, None)
        assert heard == [None]


def test_a_fixed_directory_with_tls_takes_its_targets_for_tls(serve, certificates):
    server = serve(certificates.of("echo"))
    tls = certificates.of("api")
    with FixedDirectory({"echo": [server.replica.target]}, tls=tls) as fixed:
        stub = echo_pb2_grpc.EchoStub(fixed.channel("echo"))
        assert stub.Echo(REQUEST, timeout=DEADLINE).server == "echo"


async def test_no_credentials_are_no_word_for_plain_text(directory, certificates):
    tls = certificates.of("api")
    with FixedDirectory({}, tls=tls) as fixed:
        assert fixed.channel("echo", credentials=None).pool.speaks is Speaks.TLS
        assert fixed.channel("echo", tls=None).pool.speaks is Speaks.PLAIN
    async with shoal.aio.Directory("127.0.0.1:1/x", tls=tls) as nowhere:
        assert nowhere.channel("echo", credentials=None).pool.speaks is Speaks.TLS


def test_tls_and_credentials_exclude_each_other(directory, certificates):
    tls = certificates.of("api")
    credentials = TlsFiles(tls).current().channel_credentials()
    with pytest.raises(ValueError, match="not both"):
        shoal.Channel(directory, "echo", tls=tls, credentials=credentials)
