"""When an empty set is believed."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shoal.belief import TOGETHER, Belief, Vanished, believe
from shoal_balancer import Replica, Status

A = Replica("a", "10.0.0.1", 1)
B = Replica("b", "10.0.0.2", 1)
C = Replica("c", "10.0.0.3", 1)


def draining(replica):
    return replace(replica, status=Status.DRAINING, enabled=False)


def test_a_set_that_vanishes_at_once_is_held():
    assert believe((A, B), ()) == Belief((A, B), held=True)


def test_replicas_that_left_in_order_are_gone():
    assert believe((draining(A), replace(B, enabled=False)), ()) == Belief(())


def test_of_a_mixed_set_only_those_are_held_that_said_nothing():
    assert believe((draining(A), B), ()) == Belief((B,), held=True)


def test_a_held_set_yields_to_the_first_replica():
    assert believe(believe((A,), ()).replicas, (B,)) == Belief((B,))


def test_nothing_known_and_nothing_seen_is_empty():
    assert believe((), ()) == Belief(())


def test_those_that_vanished_shortly_before_are_held_too():
    vanished = Vanished()
    vanished.note((A, B, C), (B, C), 100.0)
    vanished.note((B, C), (C,), 105.0)
    assert believe((C,), (), vanished.replicas) == Belief((A, B, C), held=True)
    # Where the last left in order there is nothing wrong.
    assert believe((draining(C),), (), vanished.replicas) == Belief(())


def test_who_came_back_drained_or_left_long_ago_is_not_held():
    vanished = Vanished()
    vanished.note((A, B, draining(C)), (B,), 100.0)
    assert vanished.replicas == (A,)
    vanished.note((B,), (A,), 110.0)
    assert vanished.replicas == (B,)
    vanished.note((A,), (A,), 110.0 + TOGETHER)
    assert vanished.replicas == (B,)
    vanished.note((A,), (A,), 111.0 + TOGETHER)
    assert vanished.replicas == ()


replicas = st.lists(
    st.builds(
        Replica,
        id=st.sampled_from("abc"),
        address=st.just("10.0.0.1"),
        port=st.integers(1, 3),
        status=st.sampled_from(Status),
        enabled=st.booleans(),
    ),
    max_size=4,
).map(tuple)


@given(replicas, replicas)
def test_what_is_seen_is_always_believed_and_nothing_is_invented(last, observed):
    belief = believe(last, observed)
    if observed:
        assert belief == Belief(observed)
    assert set(belief.replicas) <= set(last) | set(observed)
    assert belief.held is (not observed and any(each.routable for each in last))
