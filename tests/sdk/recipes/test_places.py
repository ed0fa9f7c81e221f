"""The line before a lock, from names alone."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.recipes.places import Place, find, line, prefix_of

A, B, C = (prefix_of(letter * 32) for letter in "abc")


def named(prefix, number):
    """As ZooKeeper's servers write numbers: C's %010d."""
    return f"{prefix}{number:010d}" if number >= 0 else f"{prefix}{number:011d}"


def test_the_order_is_that_of_the_numbers_and_not_of_the_names():
    names = [named(A, 12), named(C, 3), named(B, 7)]
    assert line(names) == [named(C, 3), named(B, 7), named(A, 12)]


def test_who_is_first_waits_for_nobody_and_others_for_the_one_before():
    names = [named(A, 12), named(C, 3), named(B, 7)]
    assert find(names, C) == Place(named(C, 3), None, 0)
    assert find(names, B) == Place(named(B, 7), named(C, 3), 1)
    assert find(names, A) == Place(named(A, 12), named(B, 7), 2)


def test_who_has_no_node_has_no_place():
    assert find([named(A, 1)], B) is None
    assert find([], A) is None


def test_a_second_node_of_the_same_contender_is_an_extra():
    names = [named(A, 4), named(B, 5), named(A, 6), named(A, 9)]
    assert find(names, A) == Place(named(A, 4), None, 0, (named(A, 6), named(A, 9)))


@pytest.mark.parametrize(
    "stranger", ["note", "x-0000000001", f"{A}1", f"{A}00000000001", f"{A}0000000001x", ""]
)
def test_what_is_no_contender_is_left_out(stranger):
    assert line([stranger, named(B, 2)]) == [named(B, 2)]


def test_numbers_beyond_the_last_are_negative_and_still_read():
    assert line([named(A, -2147483648)]) == [named(A, -2147483648)]


@given(st.sets(st.integers(0, 2**31 - 1), min_size=1, max_size=60), st.randoms())
def test_each_waits_for_one_and_each_is_waited_for_by_one(numbers, rng):
    names = {named(prefix_of(uuid.UUID(int=number).hex), number): number for number in numbers}
    shuffled = sorted(names)
    rng.shuffle(shuffled)
    before = {name: find(shuffled, name.rpartition("_")[0] + "_").before for name in names}
    assert sorted(names[name] for name in before.values() if name) == sorted(numbers)[:-1]
    assert [name for name, earlier in before.items() if earlier is None] == [line(names)[0]]
    for name, earlier in before.items():
        if earlier:
            between = [n for n in numbers if names[earlier] < n < names[name]]
            assert between == []
