"""The ZooKeeper that tests and local fleets run."""

import os
import random
import socket
import subprocess
import sys

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, SessionExpiredError

from shoal.testing import installed
from shoal.testing.installed import ZooKeeperError, find_classpath, find_java
from shoal.testing.zookeeper import ZooKeeperEnsemble, ZooKeeperServer
from tests.support.waiting import eventually


def connect(hosts: str) -> KazooClient:
    client = KazooClient(hosts=hosts, timeout=10.0)
    client.start(timeout=30)
    return client


def stop(client: KazooClient) -> None:
    client.stop()
    client.close()


def kept(client):
    try:
        return client.get("/kept")[0]
    except (ConnectionLoss, SessionExpiredError):
        return None  # It is not connected again yet.


def test_it_serves_and_a_killed_one_returns_on_the_same_port_with_its_data(tmp_path):
    server = ZooKeeperServer(tmp_path / "zk")
    try:
        first = server.start().pid
        client = connect(server.hosts)
        client.create("/kept", b"yes")
        server.restart()
        assert server.pid != first
        assert server.mode == "standalone"
        assert eventually(lambda: kept(client)) == b"yes"
        stop(client)

        again = ZooKeeperServer(tmp_path / "zk")
        assert (again.pid, again.port) == (server.pid, server.port)
        again.stop()
        # Its memory is gone, which the one sees; that it can be reaped, the other, comes later.
        eventually(lambda: not server.running)
        server.stop()
    finally:
        server.close()
    assert (tmp_path / "zk" / "data").exists()


def test_a_temporary_one_leaves_nothing():
    with ZooKeeperServer() as server:
        pid, root = server.pid, server.data_dir
        assert root.exists()
    assert not root.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_expired_session_loses_its_ephemerals(zookeeper):
    client = connect(zookeeper.hosts)
    watcher = connect(zookeeper.hosts)
    session = client.client_id[0]
    client.create(f"/ephemeral-{session:x}", ephemeral=True)
    zookeeper.expire_session(client.client_id)
    assert watcher.exists(f"/ephemeral-{session:x}") is None
    stop(client)
    stop(watcher)


def test_what_is_missing_is_named_with_its_cure(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ZooKeeperError, match="apt-get install zookeeper"):
        find_java()
    monkeypatch.setattr("shoal.testing.installed._JAR", str(tmp_path / "zookeeper.jar"))
    monkeypatch.delenv("ZOOKEEPER_HOME", raising=False)
    with pytest.raises(ZooKeeperError, match="apt-get install zookeeper"):
        find_classpath()


def test_a_server_that_does_not_come_up_shows_its_log(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = ZooKeeperServer(tmp_path / "zk", port=taken.getsockname()[1])
        with pytest.raises(ZooKeeperError, match="Address already in use"):
            server.start()
        server.close()


def test_no_port_is_given_to_two_who_have_not_bound_it_yet(monkeypatch):
    monkeypatch.setattr(installed, "_PORTS", range(17500, 17600))
    monkeypatch.setattr(random, "sample", lambda ports, _count: list(ports))
    code = (
        "import random, sys\n"
        "from shoal.testing import installed\n"
        "installed._PORTS = range(17500, 17600)\n"
        "random.sample = lambda ports, _count: list(ports)\n"
        "print(installed.free_port())"
    )
    mine = installed.free_port()
    theirs = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert int(theirs.stdout) > mine
    # It was given back when its process ended, and is asked for again until somebody has it.
    eventually(lambda: installed._claim(int(theirs.stdout)), what="the port")
    assert not installed._claim(mine)


def test_an_ensemble_elects_another_leader(tmp_path):
    with ZooKeeperEnsemble(3, tmp_path / "ensemble") as ensemble:
        assert sorted(server.mode for server in ensemble) == ["follower", "follower", "leader"]
        leader = ensemble.leader()
        assert leader is not None
        client = connect(ensemble.hosts)
        client.create("/kept", b"yes")
        leader.kill()
        assert eventually(lambda: kept(client)) == b"yes"
        leader.start()
        assert leader.mode == "follower"
        stop(client)
        assert len(ensemble.pids) == 3
    assert ensemble.pids == ()
