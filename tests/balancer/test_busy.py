"""Replicas that say BUSY are spared, as long as enough are left that don't."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_balancer import Outcome
from shoal_balancer.snapshot import CALM
from tests.balancer.helpers import Hand, balancer, names, node_of, replica


def saying(made, **statuses):
    """The directory tells of replicas and what they say."""
    made.update([replica(name, status=status) for name, status in statuses.items()])


@pytest.mark.parametrize(
    ("statuses", "ready"),
    [
        ("UBUU", "acd"),
        ("UBBU", "ad"),  # half are left
        ("UBBB", "abcd"),  # one must not get everything
        ("BBBB", "abcd"),
        ("B", "a"),
        ("UB", "a"),
        ("UDB", "a"),  # of two that may be called one is calm
        ("DDB", "c"),
    ],
)
def test_the_busy_are_spared_while_half_are_not(statuses, ready):
    made = balancer()
    words = {"U": "UP", "B": "BUSY", "D": "DRAINING"}
    saying(made, **{name: words[each] for name, each in zip("abcd", statuses, strict=False)})
    assert names(made.snapshot.ready) == list(ready)


def test_one_that_is_up_again_is_called_again_with_its_history():
    made = balancer("ab")
    node = node_of(made, "b")
    saying(made, a="UP", b="BUSY")
    assert {made.pick(0.0).replica.id for _ in range(20)} == {"a"}
    saying(made, a="UP", b="UP")
    assert node_of(made, "b") is node
    assert "b" in {made.pick(0.0).replica.id for _ in range(50)}


def test_a_busy_one_is_the_last_resort():
    made = balancer("ab")
    saying(made, a="UP", b="BUSY")
    assert made.pick(0.0, exclude=[node_of(made, "a")]).replica.id == "b"


def test_calm_ones_that_are_ejected_or_out_of_reach_are_not_counted():
    made = balancer("abcd", clock=Hand(0.0))
    saying(made, a="UP", b="UP", c="BUSY", d="BUSY")
    assert names(made.snapshot.ready) == ["a", "b"]
    made.reach(node_of(made, "a"), reachable=False)
    assert names(made.snapshot.ready) == ["b", "c", "d"]
    made.reach(node_of(made, "a"), reachable=True)
    for _ in range(5):
        node = node_of(made, "b")
        node.begin()
        node.end(0.01, Outcome.FAILED, made.clock())
    assert "a" in names(made.snapshot.ready)
    assert "c" in names(made.snapshot.ready)


@given(st.lists(st.sampled_from(["UP", "BUSY", "DRAINING"]), min_size=1, max_size=12))
def test_whoever_is_busy_somebody_is_ready_and_never_too_few(statuses):
    made = balancer()
    saying(made, **{f"r{number:02}": each for number, each in enumerate(statuses)})
    routable = [each for each in statuses if each != "DRAINING"]
    ready = len(made.snapshot.ready)
    assert ready >= CALM * len(routable)
    assert bool(ready) == bool(routable)
    if routable.count("UP") >= CALM * len(routable) and "UP" in routable:
        assert ready == routable.count("UP")
