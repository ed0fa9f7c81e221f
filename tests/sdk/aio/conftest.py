"""Replicas on plain grpc in this process, and a fixed directory."""

from __future__ import annotations

import pytest

from shoal.testing import FixedDirectory
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
