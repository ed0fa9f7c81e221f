"""What ZooKeeper's servers answer, and a real one that does."""

import socket
import threading

from shoal.tls import Tls
from shoal_gateway.dashboard.zookeeper import Member, ask_all, quorum, read

SRVR = """Zookeeper version: 3.8.0-5a02a05eddb59aee6ac762f7ea82e92a68eb9c0f, built on 2022
Latency min/avg/max: 0/1.25/103
Received: 204
Sent: 203
Connections: 16
Outstanding: 2
Zxid: 0x4a
Mode: leader
Node count: 34
"""
MNTR = "zk_version\t3.8.0\nzk_global_sessions\t15\nzk_synced_followers\t2\n"


def test_all_that_is_told():
    found = read("zk1:2181", SRVR, MNTR, 1.5)
    assert found == Member(
        "zk1:2181",
        mode="leader",
        version="3.8.0",
        latency=1.25,
        worst=103.0,
        connections=16,
        sessions=15,
        outstanding=2,
        nodes=34,
        synced=2,
        answered=1.5,
    )


def test_words_that_are_not_allowed():
    closed = "srvr is not executed because it is not in the whitelist.\n"
    assert "4lw.commands.whitelist" in read("zk1:2181", closed, closed, 1.0).problem
    partly = read("zk1:2181", SRVR, closed, 1.0)
    assert (partly.mode, partly.sessions) == ("leader", None)
    assert "mntr" in partly.problem


def test_a_server_without_a_quorum():
    said = "This ZooKeeper instance is not currently serving requests\n"
    found = read("zk1:2181", said, said, 1.0)
    assert (found.mode, found.problem) == ("", "is not in a quorum, and serves nobody")
    assert quorum([found, Member("b", problem="x")]) == "no leader: nothing can be written"


def test_how_the_ensemble_is():
    leader, follower = Member("a", mode="leader"), Member("b", mode="follower")
    dead = Member("c", problem="does not answer")
    assert quorum([leader, follower, dead]) == "2 of 3 servers, led by a"
    assert quorum([dead]) == "no server answers"
    assert quorum([Member("a", mode="standalone")]) == "one server, no ensemble"


async def test_a_real_server_and_a_dead_one(zookeeper):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        alive, gone = await ask_all(f"{zookeeper.hosts},{dead}/gateway", None)
    assert alive.mode == "standalone"
    assert alive.sessions is not None
    assert alive.latency is not None
    assert gone.mode == ""
    assert "does not answer" in gone.problem


async def test_something_else_behind_the_port_is_no_zookeeper():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def answer():
            for _ in range(2):
                connection, _ = listening.accept()
                with connection:
                    # All of it: what is left unread would reset the connection.
                    connection.recv(64)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(64)

        thread = threading.Thread(target=answer)
        thread.start()
        (found,) = await ask_all(f"127.0.0.1:{port}", None)
        thread.join(10)
    assert found.problem == "answers what is not ZooKeeper's"


async def test_a_certificate_that_is_being_renewed_is_a_finding_and_no_end(tmp_path):
    tls = Tls(*(tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt")))
    found = await ask_all("tls://zk1:2281,zk2:2281/gateway", tls)
    assert [each.address for each in found] == ["zk1:2281", "zk2:2281"]
    assert all("tls.crt can't be used" in each.problem for each in found)
