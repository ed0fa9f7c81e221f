"""TLS and call credentials pass through, blocking and asyncio."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import shoal.aio
from shoal.channel import Channel
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.echo import Echo
from tests.support.tls import channel_credentials, server_credentials

DEADLINE = 30.0


@pytest.fixture(scope="module")
def secure():
    """A TLS server: its servicer and its target."""
    servicer = Echo("secure")
    server = grpc.server(ThreadPoolExecutor(8))
    echo_pb2_grpc.add_EchoServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials())
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


class Token(grpc.AuthMetadataPlugin):
    """Adds a token to each call."""

    def __call__(self, context, callback):
        callback((("token", context.method_name),), None)


def call_credentials():
    return grpc.metadata_call_credentials(Token())


def test_blocking(secure):
    servicer, target = secure
    servicer.seen.clear()
    credentials = {"credentials": call_credentials(), "timeout": DEADLINE}
    directory = FixedDirectory({"echo": [target]})
    with Channel(directory, "echo", credentials=channel_credentials()) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        request = pb.EchoRequest(payload=b"x")
        assert stub.Echo(request, **credentials).server == "secure"
        assert stub.Echo.with_call(request, **credentials)[0].server == "secure"
        assert stub.Echo.future(request, **credentials).result().server == "secure"
        assert next(stub.EchoDown(request, **credentials)).server == "secure"
        assert stub.EchoUp(iter([request]), **credentials).payload == b"x"
        assert next(stub.EchoBoth(iter([request]), **credentials)).payload == b"x"
    tokens = [seen.get("token") for _, seen in servicer.seen]
    assert tokens == ["Echo", "Echo", "Echo", "EchoDown", "EchoUp", "EchoBoth"]


def test_asyncio(secure):
    servicer, target = secure
    servicer.seen.clear()
    credentials = {"credentials": call_credentials(), "timeout": DEADLINE}

    async def run():
        directory = FixedDirectory({"echo": [target]})
        async with shoal.aio.Channel(
            directory, "echo", credentials=channel_credentials()
        ) as channel:
            stub = echo_pb2_grpc.EchoStub(channel)
            request = pb.EchoRequest(payload=b"x")
            assert (await stub.Echo(request, **credentials)).server == "secure"
            assert [m.server async for m in stub.EchoDown(request, **credentials)] == ["secure"]
            assert (await stub.EchoUp(iter([request]), **credentials)).payload == b"x"
            assert [m.payload async for m in stub.EchoBoth(iter([request]), **credentials)]

    asyncio.run(run())
    tokens = [seen.get("token") for _, seen in servicer.seen]
    assert tokens == ["Echo", "EchoDown", "EchoUp", "EchoBoth"]


def test_plaintext_to_a_tls_server_is_refused(secure):
    _, target = secure
    with Channel(FixedDirectory({"echo": [target]}), "echo") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            echo_pb2_grpc.EchoStub(channel).EchoOnce(pb.EchoRequest(), timeout=DEADLINE)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
