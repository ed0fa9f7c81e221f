"""Servers over a `FixedDirectory`, in this process."""

import subprocess

import grpc
import pytest

import shoal
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.echo import Echo


@pytest.fixture
def directory():
    with FixedDirectory() as directory:
        yield directory


@pytest.fixture
def made():
    """Makes Echo servers that leave quickly, and ends what is left of them."""
    servers = []

    def make(**options):
        server = shoal.Server("echo", **{"id": "one", "linger": 0.3, "grace": 20.0, **options})
        server.echo = Echo("one")
        echo_pb2_grpc.add_EchoServicer_to_server(server.echo, server)
        servers.append(server)
        return server

    yield make
    for server in servers:
        assert server.stop(0).wait(30)


@pytest.fixture
def channel_to():
    """Plain grpc channels, which say no hello and have no retries, one connection each."""
    channels = []

    def make(target, credentials=None):
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            channels.append(grpc.insecure_channel(target, options))
        else:
            channels.append(grpc.secure_channel(target, credentials, options))
        return channels[-1]

    yield make
    for channel in channels:
        channel.close()


@pytest.fixture
def stub_to(channel_to):
    return lambda target: echo_pb2_grpc.EchoStub(channel_to(target))


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """A key and a certificate for 127.0.0.1, as bytes."""
    place = tmp_path_factory.mktemp("tls")
    key, certificate = place / "key.pem", place / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return key.read_bytes(), certificate.read_bytes()
