"""What ZooKeeper's words say, and how a return is read from many looks at them."""

from __future__ import annotations

import pytest

from shoal_gateway import fourletters
from shoal_gateway.experiments import zkmeter
from shoal_gateway.experiments.zkmeter import Return, Sample
from shoal_gateway.experiments.zookeeper_loss import IGNORANT, KNOWING, shortcomings

DUMP = """SessionTracker dump:
Session Sets (2)/(2):
ephemeral nodes dump:
Sessions with Ephemerals (2):
0x1000a1:
\t/gateway/services/api/api-1
\t/gateway/locks/upgrade/x
0x2000b2:
\t/gateway/services/registry/registry-1
Connections dump:
Connections Sets (1)/(1):
"""
BOTH = frozenset({"a", "b"})


def test_the_words_of_a_server_are_read():
    assert fourletters.figures("zk_version\t3.8\nzk_packets_received\t42\nodd\n") == {
        "zk_version": "3.8",
        "zk_packets_received": "42",
    }
    assert zkmeter.owners(DUMP) == {
        0x1000A1: {"/gateway/services/api/api-1", "/gateway/locks/upgrade/x"},
        0x2000B2: {"/gateway/services/registry/registry-1"},
    }
    cons = (
        " /127.0.0.1:5000[1](queued=0,recved=9,sid=0x1000a1,lop=PING)\n /127.0.0.1:1[0](queued=0)"
    )
    assert zkmeter.connected(cons) == {0x1000A1}


def look(at, *, requests=1, leader=True, registered=BOTH):
    return Sample(at, requests, leader, frozenset(registered))


def test_a_return_is_counted_from_the_first_quorum_to_the_last_replica():
    samples = [
        *(look(float(at), requests=2) for at in range(10)),
        *(look(float(at), requests=0, leader=False, registered=()) for at in range(10, 20)),
        look(20.0, requests=5, registered=()),
        look(21.0, requests=30, registered={"a"}),
        look(23.5, requests=4, registered={"a", "b", "c"}),
        look(24.5, requests=9),
    ]
    assert zkmeter.returned(samples, BOTH, 9.5) == Return(3.5, 2.0, 30, 39)


def test_who_never_comes_back_is_not_counted_as_back():
    before = [look(0.0), look(1.0)]
    gone = look(2.0, leader=False, registered=())
    back = zkmeter.returned([*before, gone, look(3.0, registered={"a"})], BOTH, 1.5)
    assert back.seconds is None
    assert zkmeter.returned([*before, gone], BOTH, 1.5).seconds is None


@pytest.fixture
def told():
    return {KNOWING: {"served": True, "job": "SUCCEEDED"}, IGNORANT: {"served": False}}


def test_nothing_is_short_of_a_good_run(told):
    assert shortcomings(Return(14.9, 1.0, 9, 9), 0, told, bound=15.0) == []


@pytest.mark.parametrize(
    ("back", "failed", "changes", "word"),
    [
        (Return(None, 1.0, 9, 9), 0, {}, "not every replica"),
        (Return(15.5, 1.0, 9, 9), 0, {}, "15.5 s after"),
        (Return(1.0, 1.0, 9, 9), 3, {}, "3 plain calls failed"),
        (Return(1.0, 1.0, 9, 9), 0, {KNOWING: {"served": False}}, "with a snapshot"),
        (Return(1.0, 1.0, 9, 9), 0, {KNOWING: {"served": True, "job": "DEAD"}}, "DEAD"),
        (Return(1.0, 1.0, 9, 9), 0, {IGNORANT: {"served": True}}, "was not dead"),
    ],
)
def test_what_is_short_is_said(told, back, failed, changes, word):
    (problem,) = shortcomings(back, failed, told | changes, bound=15.0)
    assert word in problem
