"""The DNS server over a real ZooKeeper, asked by dig."""

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading

import dnslib
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
def test_dig_finds_the_replicas_of_a_service_and_follows_them(directories, answering, operator):
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
    assert server.short("jobs.shoal.test", "AAAA") == ["fd00::7"]
    assert server.short("sql.jobs.shoal.test") == ["10.0.0.1"]
    assert server.short("_jobs._tcp.shoal.test", "SRV") == [
        "0 100 5002 10-0-0-2.addr.shoal.test.",
        "0 100 5003 fd00-0000-0000-0000-0000-0000-0000-0007.addr.shoal.test.",
        "0 200 5001 10-0-0-1.addr.shoal.test.",
    ]
    texts = server.short("+tcp", "jobs.shoal.test", "TXT")
    assert [line for line in texts if '"version=1.2" "flavor=sql"' in line]
    assert "status: NXDOMAIN" in server.dig("other.shoal.test")
    assert "status: REFUSED" in server.dig("example.org")
    assert "status: NOERROR" in server.dig("jobs.shoal.test", "MX")
    # What changes is told, and so is a service that comes or goes.
    first.begin_withdrawal()
    eventually(lambda: server.short("jobs.shoal.test") == ["10.0.0.2"], WAIT)
    other = announcer.announce("other", Replica("o", "10.0.0.9", 5009))
    eventually(lambda: server.short("other.shoal.test") == ["10.0.0.9"], WAIT)
    other.withdraw()
    eventually(lambda: "ANSWER: 0" in server.dig("other.shoal.test"), WAIT)
    operator.delete(f"{announcer.services_path}/other")
    eventually(lambda: "status: NXDOMAIN" in server.dig("other.shoal.test"), WAIT)


@needs_dig
def test_a_large_answer_is_truncated_and_fetched_by_tcp(directories, answering):
    announcer = directories()
    for number in range(40):
        announcer.announce("jobs", Replica(f"r{number}", f"10.0.1.{number}", 5000))
    server = answering(directories())
    eventually(lambda: len(server.short("+noedns", "+tcp", "jobs.shoal.test")) == 40, WAIT)
    assert "flags: qr aa tc" in server.dig("+noedns", "+ignore", "jobs.shoal.test")
    assert len(server.short("+noedns", "jobs.shoal.test")) == 40
    assert "Truncated, retrying in TCP" in server.dig("+bufsize=900", "jobs.shoal.test", "SRV")
    assert "flags: qr aa rd;" in server.dig("jobs.shoal.test")


@needs_dig
def test_answers_go_on_while_zookeeper_is_away_and_say_that_they_are_old(
    own_zookeeper, directories, answering
):
    hosts = f"{own_zookeeper.hosts}/dns"
    announcer = directories(hosts, session_timeout=60.0)
    announcer.announce("jobs", Replica("a", "10.0.0.1", 5001))
    kept = directories(hosts)
    server = answering(kept)
    eventually(lambda: server.short("jobs.shoal.test") == ["10.0.0.1"], WAIT)
    eventually(lambda: kept.remembered() == {"jobs"}, WAIT)
    status = ("_status.shoal.test", "TXT")
    assert any('"stale=no"' in line for line in server.short(*status))
    own_zookeeper.kill()
    eventually(lambda: any('"stale=yes"' in line for line in server.short(*status)), WAIT)
    assert server.short("jobs.shoal.test") == ["10.0.0.1"]
    # One that starts now has what the disk remembers, and can't deny what it doesn't know.
    late = answering(directories(hosts))
    eventually(lambda: late.short("jobs.shoal.test") == ["10.0.0.1"], WAIT)
    assert "status: SERVFAIL" in late.dig("other.shoal.test")
    own_zookeeper.start()
    for each in (server, late):
        eventually(lambda one=each: any('"stale=no"' in x for x in one.short(*status)), WAIT)
        assert "status: NXDOMAIN" in each.dig("other.shoal.test")


def ask(port, *, tcp=False):
    query = dnslib.DNSRecord.question("jobs.shoal.test")
    reply = dnslib.DNSRecord.parse(query.send("127.0.0.1", port, tcp=tcp, timeout=WAIT))
    return [str(rr.rdata) for rr in reply.rr]


def test_nothing_that_is_sent_to_it_ends_it(directories, answering):
    directories().announce("jobs", Replica("a", "10.0.0.1", 5001))
    server = answering(directories())
    eventually(lambda: ask(server.port) == ["10.0.0.1"], WAIT)
    rng = random.Random(5)
    good = dnslib.DNSRecord.question("jobs.shoal.test").pack()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for length in [0, 1, 11, 12, 13, *range(0, 1400, 100)]:
            udp.sendto(rng.randbytes(length), ("127.0.0.1", server.port))
            udp.sendto(good[:length], ("127.0.0.1", server.port))
    for data in (b"\0", b"\0\0", b"\xff\xff", b"\0\x0c" + b"x" * 12, rng.randbytes(70000)):
        # It may have had enough before it has read all.
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as tcp,
        ):
            tcp.sendall(data)
    assert ask(server.port) == ask(server.port, tcp=True) == ["10.0.0.1"]
    # Several questions by one connection, one after the other.
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as tcp:
        stream = tcp.makefile("rwb")
        for _ in range(3):
            stream.write(len(good).to_bytes(2) + good)
            stream.flush()
            reply = dnslib.DNSRecord.parse(stream.read(int.from_bytes(stream.read(2))))
            assert [str(rr.rdata) for rr in reply.rr] == ["10.0.0.1"]


def test_the_command_answers_until_it_is_told_to_end(directories, tmp_path):
    directory = directories()
    directory.announce("jobs", Replica("a", "10.0.0.1", 5001))
    command = [sys.executable, "-m", "shoal_gateway.cli", "--zookeeper", directory.hosts]
    command += ["--fleet", str(tmp_path), "dns", "--zone", "shoal.test", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        port = int(run.stdout.readline().rpartition(" ")[2])
        try:
            eventually(lambda: ask(port) == ["10.0.0.1"], WAIT)
            taken = subprocess.run(
                [*command[:-1], f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=WAIT
            )
        finally:
            run.send_signal(signal.SIGTERM)
        assert run.wait(WAIT) == 0
        assert run.stderr.read() == ""
    assert taken.returncode == 1
    assert f"can't answer DNS at 127.0.0.1 port {port}" in taken.stderr.replace("\n", " ")
