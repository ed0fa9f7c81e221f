"""Fixtures for pytest: a real ZooKeeper for the session, and a place of its own for each test.

In a ``conftest.py``::

    from shoal.testing.fixtures import chroot, zookeeper
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from shoal.testing.zookeeper import ZooKeeperServer


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeperServer]:
    """One server for all tests of a session; a test that kills servers makes its own."""
    with ZooKeeperServer() as server:
        yield server


@pytest.fixture
def chroot(zookeeper: ZooKeeperServer) -> str:
    """What a test gives to `shoal.Directory`: the server, and a path that no other test uses."""
    return f"{zookeeper.hosts}/test-{uuid.uuid4().hex[:12]}"
