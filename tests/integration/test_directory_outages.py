"""Callers and replicas while ZooKeeper is dead, silent, gone for long, or back as a stranger."""

import itertools
import logging
import socket
import threading
import time
from dataclasses import replace

import pytest

from shoal.directory import Directory
from shoal.testing.zookeeper import ZooKeeperEnsemble, ZooKeeperServer, free_port
from shoal_balancer import Replica, Status
from tests.support.waiting import eventually

A = Replica("a", "127.0.0.1", 5001, registered_at=1.0)
B = Replica("b", "127.0.0.1", 5002, registered_at=2.0)


def connected(directory):
    return directory._session is not None and directory._session.connected


def test_zookeeper_dead_at_start_the_constructor_is_immediate_and_the_snapshot_is_used(
    own_zookeeper, tmp_path, caplog
):
    hosts, cache = f"{own_zookeeper.hosts}/x", tmp_path / "cache"
    with Directory(hosts, cache_dir=cache) as earlier:
        earlier.announce("jobs", A)
        earlier.announce("jobs", B)
        earlier.ready("jobs", count=2)
        eventually(lambda: (loaded := earlier._cache.load("jobs")) and loaded[0] == (A, B))
        own_zookeeper.kill()

    with caplog.at_level(logging.WARNING, logger="shoal"):
        began = time.monotonic()
        directory = Directory(hosts, cache_dir=cache)
        watch = directory.watch("jobs")
        assert time.monotonic() - began < 1.0
        assert directory.ready("jobs", count=2) == (A, B)
    assert watch.known
    assert "snapshot on disk" in watch.describe()
    assert "starting from the snapshot on disk" in caplog.text
    assert watch.age > 0.0

    # ZooKeeper returns, and what it says replaces what the disk said.
    own_zookeeper.wipe()
    own_zookeeper.start()
    with Directory(hosts, cache_dir=tmp_path / "other") as server:
        server.announce("jobs", replace(B, version="new"))
        eventually(lambda: watch.replicas() == (replace(B, version="new"),))
    directory.close()


def test_zookeeper_dead_at_start_without_a_snapshot_nothing_is_known_and_nothing_raises(tmp_path):
    began = time.monotonic()
    with Directory("127.0.0.1:1/x", cache_dir=tmp_path) as directory:
        assert directory.describe() == "not used yet"
        watch = directory.watch("jobs")
        assert not watch.known
        assert watch.replicas() == ()
        assert watch.age is None
        with pytest.raises(TimeoutError, match=r"connecting .*never read, and no snapshot"):
            directory.ready("jobs", timeout=1.0)
    assert time.monotonic() - began < 20.0


def test_without_a_use_there_is_no_kazoo_client(tmp_path):
    before = threading.active_count()
    with Directory("127.0.0.1:1/x", cache_dir=tmp_path) as directory:
        assert directory._session is None
        assert threading.active_count() == before


def test_traps_1_and_3_a_caller_whose_zookeeper_dies_and_returns_with_a_new_session(
    own_zookeeper, directories, caplog
):
    hosts = f"{own_zookeeper.hosts}/x"
    caller, server = directories(hosts), directories(hosts)
    server.announce("jobs", A)
    assert caller.ready("jobs") == (A,)
    watch, session = caller.watch("jobs"), caller._session.session_id
    identity = caller._session.client.client_id

    own_zookeeper.kill()
    eventually(lambda: "suspended" in watch.describe())
    # Held, and its age is told.
    assert watch.replicas() == (A,)
    assert watch.known
    assert "set of 1 replicas held" in watch.describe()
    eventually(lambda: watch.age > 0.0)
    eventually(lambda: "Connection refused" in caplog.text)

    own_zookeeper.start()
    own_zookeeper.expire_session(identity)
    eventually(lambda: connected(caller) and caller._session.session_id != session)
    eventually(lambda: watch.describe() == "connected; 1 replicas")
    # The watches of the old session are gone with it; the new one has its own.
    server.announce("jobs", B)
    assert caller.ready("jobs", count=2) == (A, B)


def test_a_silent_zookeeper_takes_all_sessions_and_no_caller_loses_a_replica(
    own_zookeeper, directories
):
    # Paused for longer than the sessions last: connections stay open, nothing answers, and on
    # waking up the server ends every session at once, while every replica serves on.
    hosts = f"{own_zookeeper.hosts}/x"
    caller = directories(hosts, session_timeout=1.0)
    servers = [directories(hosts, session_timeout=1.0) for _ in range(2)]
    for server, replica in zip(servers, (A, B), strict=True):
        server.announce("jobs", replica)
    caller.ready("jobs", count=2)
    watch = caller.watch("jobs")
    seen = []
    watch.subscribe(seen.append)
    before = {server._session.session_id for server in servers}

    own_zookeeper.pause()
    eventually(lambda: "suspended" in watch.describe())
    # Nobody tells a client that is cut off; its own clock does (kazoo#89).
    eventually(lambda: all(each._session.doubtful for each in (*servers, caller)))
    eventually(lambda: "probably expired" in watch.describe())
    own_zookeeper.resume()

    eventually(lambda: all(connected(each) for each in (*servers, caller)))
    # A client may be back for a moment before the server ends its session; on a busy machine its
    # ping may even come first, and keep it.
    for server in servers:
        if server._session.session_id in before:
            own_zookeeper.expire_session(server._session.client.client_id)
    eventually(lambda: before.isdisjoint({server._session.session_id for server in servers}))
    eventually(lambda: watch.describe() == "connected; 2 replicas")
    assert () not in seen
    assert watch.replicas() == (A, B)


def test_a_zookeeper_that_returns_without_its_data_is_filled_again(own_zookeeper, directories):
    # It has not seen what its clients have seen, and refuses them for that (their last zxid).
    hosts = f"{own_zookeeper.hosts}/x"
    caller, server = (directories(hosts, session_timeout=1.0) for _ in range(2))
    for number in range(5):
        server.announce("jobs", Replica(f"r{number}", "127.0.0.1", 5000 + number))
    replicas = caller.ready("jobs", count=5)
    own_zookeeper.kill()
    own_zookeeper.wipe()
    own_zookeeper.start()
    eventually(lambda: connected(server) and connected(caller))
    eventually(lambda: caller.watch("jobs").describe() == "connected; 5 replicas")
    assert caller.watch("jobs").replicas() == replicas


def test_closing_while_zookeeper_is_silent_does_not_take_long(own_zookeeper, tmp_path):
    directory = Directory(f"{own_zookeeper.hosts}/x", cache_dir=tmp_path)
    directory.announce("jobs", A)
    own_zookeeper.pause()
    try:
        began = time.monotonic()
        directory.close()
        assert time.monotonic() - began < 20.0
    finally:
        own_zookeeper.resume()


def test_trap_7_the_granted_session_timeout_is_read_and_told(directories, caplog):
    with caplog.at_level(logging.WARNING, logger="shoal"):
        # 2 ticks of 0.5 s are the least that this server grants.
        directory = directories(session_timeout=0.2)
        directory.announce("jobs", A)
    assert directory._session.timeout == pytest.approx(1.0)
    assert "grants a session timeout of 1 s, not the 0.2 s asked for" in caplog.text


def test_trap_2_zookeepers_event_thread_is_never_blocked(directories):
    directory = directories()
    directory.watch("jobs")
    eventually(lambda: connected(directory))
    threads = set()
    session = directory._session
    told = session._on_connected
    session._on_connected = lambda lost: (threads.add(threading.current_thread().name), told(lost))
    directory.watch("jobs").subscribe(
        lambda replicas: threads.add(threading.current_thread().name) if replicas else None
    )
    directory.announce("jobs", A)
    directory.ready("jobs")
    session.client.handler.spawn(session._changed, "CONNECTED")
    eventually(lambda: threads)
    assert threads == {"shoal-directory"}


def test_trap_11_a_name_that_resolves_only_later_is_found(
    zookeeper, chroot, directories, monkeypatch, caplog
):
    real, known = socket.getaddrinfo, threading.Event()

    def resolve(host, port, *rest, **options):
        if host == "zookeeper.example":
            if not known.is_set():
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "127.0.0.1"
        return real(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    directory = directories(chroot.replace("127.0.0.1", "zookeeper.example"))
    watch = directory.watch("jobs")
    eventually(lambda: "Cannot resolve zookeeper.example" in caplog.text)
    assert not watch.known
    known.set()
    eventually(lambda: watch.known)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # on purpose
def test_a_fault_in_kazoos_connection_thread_is_not_the_last_word(directories, caplog, monkeypatch):
    monkeypatch.setattr("shoal.session.REVIVE", 0.05)
    directory = directories()
    directory.announce("jobs", A)
    handler = directory._session.client._connection
    expand, failed = handler._expand_client_hosts, threading.Event()

    def fail_once():
        if not failed.is_set():
            failed.set()
            raise MemoryError("on purpose")
        return expand()

    handler._expand_client_hosts = fail_once
    handler._socket.shutdown(socket.SHUT_RDWR)
    assert failed.wait(30)
    eventually(lambda: "kazoo gave up" in caplog.text)
    eventually(lambda: connected(directory))
    assert directory.ready("jobs") == (A,)
    assert directory.watch("jobs").replicas()[0].status is Status.UP


def test_connection_attempts_continue_at_a_bounded_pace(tmp_path):
    # Dead for a while, then there: found within the greatest pause (5 s, jittered) and not minutes.
    port = free_port()
    with Directory(f"127.0.0.1:{port}/x", cache_dir=tmp_path / "cache") as directory:
        watch = directory.watch("jobs")
        attempts = []
        connect = directory._session.client._connection._connect
        directory._session.client._connection._connect = lambda *a: (
            attempts.append(time.monotonic()),
            connect(*a),
        )[1]
        eventually(lambda: len(attempts) >= 4)
        pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
        assert max(pauses) < 15.0
        with ZooKeeperServer(tmp_path / "zk", port=port):
            eventually(lambda: watch.known)


def test_callers_outlive_the_loss_of_an_ensembles_leader(tmp_path, directories):
    with ZooKeeperEnsemble(3, tmp_path / "ensemble") as ensemble:
        hosts = f"{ensemble.hosts}/x"
        caller, server = directories(hosts), directories(hosts)
        registration = server.announce("jobs", A)
        caller.ready("jobs")
        ensemble.leader().kill()
        eventually(ensemble.leader)
        assert caller.watch("jobs").replicas() == (A,)
        eventually(lambda: connected(server))
        registration.update(status=Status.BUSY, timeout=60.0)
        eventually(lambda: caller.ready("jobs")[0].status is Status.BUSY)
        caller.close()
        server.close()
