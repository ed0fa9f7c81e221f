"""Authorities, and servers with certificates, blocking and asyncio, over one directory."""

import pytest

import shoal
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.authorities import Certificates
from tests.support.echo import Echo


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path / "certs")


@pytest.fixture
def others(tmp_path):
    """Of another authority."""
    return Certificates(tmp_path / "others")


@pytest.fixture
def directory():
    with FixedDirectory() as directory:
        yield directory


@pytest.fixture
def serve(directory):
    """Serves Echo as a service that is announced in the directory; blocking."""
    servers = []

    def make(tls, service="echo", **options):
        server = shoal.Server(service, linger=0.2, tls=tls, **options)
        server.echo = Echo(service)
        echo_pb2_grpc.add_EchoServicer_to_server(server.echo, server)
        servers.append(server)
        server.serve(directory)
        return server

    yield make
    for server in servers:
        assert server.stop(0).wait(30)
