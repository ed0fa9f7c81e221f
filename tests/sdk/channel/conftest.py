"""Replicas on plain grpc in this process, a fixed directory, and channels to them."""

from __future__ import annotations

import pytest

from shoal.channel import Channel
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.echo import EchoServer


@pytest.fixture(scope="package")
def shared_servers():
    """Three servers for tests that leave no trace in them."""
    servers = [EchoServer(name) for name in "abc"]
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def servers(shared_servers):
    """The same, with nothing seen and no script."""
    for server in shared_servers:
        server.seen.clear()
        server.servicer.script = None
    yield shared_servers
    for server in shared_servers:
        server.servicer.script = None


@pytest.fixture
def directory(servers):
    """Knows all three."""
    return FixedDirectory({"echo": [server.target for server in servers]})


@pytest.fixture
def channels(directory):
    """Makes channels that are closed at the end."""
    made = []

    def make(service="echo", where=None, **options):
        made.append(Channel(where or directory, service, **options))
        return made[-1]

    yield make
    for channel in made:
        channel.close()


@pytest.fixture
def stubs(channels):
    """Makes stubs on channels of their own."""
    return lambda **options: echo_pb2_grpc.EchoStub(channels(**options))
