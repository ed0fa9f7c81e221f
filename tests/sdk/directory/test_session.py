"""States of a session, and what an address may look like."""

import pytest

from shoal.directory import Directory, parse_hosts
from shoal.session import RECONNECT, Connection


@pytest.mark.parametrize(
    ("word", "after", "text", "doubtful"),
    [
        ("connected", 100.0, "connected", False),
        ("connecting", 3.2, "connecting for 3.2 s", False),
        ("suspended", 3.2, "suspended for 3.2 s", False),
        ("suspended", 10.5, "suspended for 10.5 s, its session has probably expired", True),
        ("lost", 0.5, "lost for 0.5 s", True),
    ],
)
def test_trap_1_a_session_is_doubted_by_our_own_clock(word, after, text, doubtful):
    connection = Connection(word, since=50.0)
    assert connection.describe(50.0 + after, timeout=10.0) == text
    assert connection.doubtful(50.0 + after, timeout=10.0) is doubtful


def test_reconnecting_never_ends_and_never_pauses_for_long():
    assert RECONNECT["max_tries"] == -1
    assert RECONNECT["max_delay"] <= 5.0


@pytest.mark.parametrize(
    ("hosts", "parsed"),
    [
        ("zk1:2181,zk2:2181/gateway", ("zk1:2181,zk2:2181", "/gateway")),
        ("zk1", ("zk1", "")),
        ("zk1:2181/", ("zk1:2181", "")),
        ("[::1]:2181/a/b/", ("[::1]:2181", "/a/b")),
    ],
)
def test_addresses(hosts, parsed):
    assert parse_hosts(hosts) == parsed


@pytest.mark.parametrize(
    "hosts",
    ["", "/gateway", "zk:port", "zk:99999", ",zk", "zk//a", "zk/a/../b", "a" * 64, None, 7],
)
def test_a_malformed_address_is_refused_with_an_example(hosts):
    with pytest.raises(ValueError, match="zk1:2181,zk2:2181/gateway"):
        Directory(hosts)


@pytest.mark.parametrize("name", ["session_timeout", "verify_every", "resync_every"])
def test_a_duration_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=name):
        Directory("zk:1", **{name: 0.0})


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "a\0b"])
def test_a_service_name_must_be_a_nodes_name(name):
    with Directory("127.0.0.1:1") as directory, pytest.raises(ValueError, match="name of a node"):
        directory.watch(name)
