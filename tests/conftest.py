"""Fixtures that all tests share."""

import logging
import signal

import pytest
from hypothesis import HealthCheck, settings
from kazoo.client import KazooClient

from shoal.testing.fixtures import chroot, zookeeper
from shoal.testing.zookeeper import ZooKeeperServer
from tests.support.databases import databases, own_postgres, postgres_url, sqlite_url, store_url
from tests.support.imds import imds
from tests.support.moto import moto, moto_server

__all__ = [
    "chroot",
    "databases",
    "imds",
    "moto",
    "moto_server",
    "own_postgres",
    "postgres_url",
    "sqlite_url",
    "store_url",
    "zookeeper",
]


# Properties are about what is true, not about how fast a busy machine makes examples.
settings.register_profile("shoal", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shoal")


@pytest.fixture(autouse=True)
def process_as_it_was():
    """A command of the terminal owns its process; here it shares it with the tests after it."""
    kazoo, handler = logging.getLogger("kazoo"), signal.getsignal(signal.SIGTERM)
    level = kazoo.level
    yield
    kazoo.setLevel(level)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def own_zookeeper():
    """A server for one test, which may kill or pause it."""
    with ZooKeeperServer() as server:
        yield server


@pytest.fixture
def directories(chroot, tmp_path):
    """Makes directories for this test's chroot, with its own cache; closes them at the end."""
    from shoal.directory import Directory

    made = []

    def make(hosts=chroot, **options):
        options.setdefault("cache_dir", tmp_path / "cache")
        made.append(Directory(hosts, **options))
        return made[-1]

    yield make
    for directory in reversed(made):
        directory.close()


@pytest.fixture
def operator(zookeeper):
    """A plain kazoo client without a chroot: an operator, or another framework."""
    client = KazooClient(hosts=zookeeper.hosts)
    client.start(timeout=30)
    yield client
    client.stop()
    client.close()
