import socket

import pytest

from shoal import connections
from shoal.connections import normal, peers_of
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("ipv4:10.0.0.7:4000", "ipv4:10.0.0.7:4000"),
        ("ipv6:%5B::1%5D:4000", "ipv6:::1:4000"),
        ("ipv6:[::1]:4000", "ipv6:::1:4000"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:4000", "ipv4:10.0.0.7:4000"),
        ("unix:", "unix:"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_peers_have_one_spelling(peer, name):
    assert normal(peer) == name


@pytest.mark.parametrize(
    ("family", "listen", "connect", "kind"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", "ipv4"),
        (socket.AF_INET6, "::1", "::1", "ipv6"),
        (socket.AF_INET6, "::", "127.0.0.1", "ipv4"),
    ],
)
def test_connections_are_seen_and_their_end_too(family, listen, connect, kind):
    with socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::") as server:
        port = server.getsockname()[1]
        assert peers_of(port) == frozenset()
        with socket.create_connection((connect, port)) as client:
            accepted, _ = server.accept()
            name = f"{kind}:{connect}:{client.getsockname()[1]}"
            assert peers_of(port) == {name}
        accepted.close()
        eventually(lambda: peers_of(port) == frozenset(), what="the end of the connection")


def test_a_system_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(connections, "_TABLES", (tmp_path / "tcp", tmp_path / "tcp6"))
    assert peers_of(1) is None
