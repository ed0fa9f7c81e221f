"""The page ends with what follows the fleet for it."""

import asyncio

import pytest

from shoal.testing import FixedDirectory
from shoal_gateway.dashboard import serving, zookeeper
from shoal_gateway.dashboard.serving import Options, serve
from shoal_gateway.dashboard.watcher import Watcher


class Tree:
    """A tree of ZooKeeper's in which nothing happens."""

    def __init__(self, *_):
        pass

    def subscribe(self, _):
        return lambda: None

    def stop(self):
        pass


@pytest.fixture
def directory(monkeypatch):
    monkeypatch.setattr(serving, "TreeWatch", Tree)
    directory = FixedDirectory({})
    directory.hosts, directory.services_below = "127.0.0.1:1", "/services"
    directory.describe = lambda: "fixed"
    return directory


@pytest.mark.parametrize(
    ("where", "name"), [(Watcher, "_beat"), (zookeeper, "ask_all"), (serving.Gateway, "follow")]
)
async def test_a_defect_in_what_follows_the_fleet_is_told_and_ends_the_page(
    directory, monkeypatch, where, name
):
    served = asyncio.Event()

    async def later(*_):
        await served.wait()
        raise RuntimeError("a defect")

    def at_once(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(where, name, at_once if name == "_beat" else later)
    with pytest.raises(RuntimeError, match="a defect"):
        async with asyncio.timeout(20):
            await serve(directory, Options(port=0), ready=lambda _: served.set())
