"""The DNS server over a real ZooKeeper, asked by dig."""

import asyncio
import shutil
import subprocess
import threading

import pytest

from shoal.dns.serving import serve
from shoal.dns.view import Zone, labels_of
from shoal_balancer import Replica, Status
from tests.support.waiting import eventually

WAIT = 60.0
ZONE = Zone(labels_of("shoal.test"))


class Answering:
    """A server on a thread of its own, and dig."""

    def __init__(self, directory):
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, args=(directory,))
        self._thread.start()
        assert self._ready.wait(WAIT)

    def _run(self, directory):
        def started(server):
            self.port = server.port
            self._ready.set()

        self._loop.run_until_complete(
            serve(directory, ZONE, "127.0.0.1", 0, self._stopped, started=started)
        )

    def dig(self, *words):
        """What dig prints of an answer."""
        command = ["dig", "@127.0.0.1", "-p", str(self.port), "+tries=3", "+time=10", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=True)
        return done.stdout

    def short(self, *words):
        return sorted(self.dig("+short", *words).split("\n")[:-1])

    def close(self):
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(WAIT)
        assert not self._thread.is_alive()
        self._loop.close()


@pytest.fixture
def answering():
    made = []

    def make(directory):
        made.append(Answering(directory))
        return made[-1]

    yield make
    for each in made:
        each.close()


needs_dig = pytest.mark.skipif(shutil.which("dig") is None, reason="dig is not installed")


@needs_dig
def test_dig_finds_the_replicas_of_a_service_and_follows_them(directories, answering):
    announcer = directories()
    first = announcer.announce(
        "jobs", Replica("a", "10.0.0.1", 5001, version="1.2", flavor="sql", weight=2.0)
    )
    announcer.announce("jobs", Replica("b", "10.0.0.2", 5002, version="1.3", flavor="files"))
    announcer.announce("jobs", Replica("c", "fd00::7", 5003))
    announcer.announce("jobs", Replica("d", "10.0.0.4", 5004, status=Status.DRAINING))
    server = answering(directories())
    eventually(lambda: len(server.short("jobs.shoal.test")) == 2, WAIT)
    assert server.short("JOBS.Shoal.Test") == ["10.0.0.1", "10.0.0.2"]
    first.begin_withdrawal()
    eventually(lambda: server.short("jobs.shoal.test") == ["10.0.0.2"], WAIT)
