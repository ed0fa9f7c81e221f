"""Quantiles from buckets, against the sorted samples themselves."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_balancer import Quantile


@given(
    st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=300),
    st.sampled_from([0.01, 0.5, 0.9, 0.99]),
)
def test_it_is_the_samples_own_quantile_up_to_a_bucket(samples, share):
    found = Quantile(share, volume=1)
    for sample in samples:
        found.record(sample, 0.0)
    # The smallest sample that at least this share of them does not exceed.
    exact = next(
        sample for number, sample in enumerate(sorted(samples), 1) if number >= share * len(samples)
    )
    assert exact * 0.9999 <= found.value(0.0) <= exact * 1.1001


def test_too_few_say_nothing():
    found = Quantile(0.9, volume=10)
    for _ in range(9):
        found.record(1.0, 0.0)
    assert found.value(0.0) is None
    found.record(1.0, 0.0)
    assert found.value(0.0) == pytest.approx(1.0, rel=0.1)


def test_two_windows_count_and_older_ones_do_not():
    found = Quantile(0.5, window=30.0, volume=1)
    found.record(1.0, 0.0)
    assert found.value(45.0) == pytest.approx(1.0, rel=0.1)
    for _ in range(2):
        found.record(10.0, 46.0)
    assert found.value(46.0) == pytest.approx(10.0, rel=0.1)
    assert found.value(200.0) is None


def test_odd_samples_are_taken_at_the_ends():
    found = Quantile(0.5, volume=1)
    found.record(0.0, 0.0)
    assert found.value(0.0) == pytest.approx(1e-6, rel=0.11)
    late = Quantile(0.5, volume=1)
    late.record(1e9, 0.0)
    assert late.value(0.0) > 1000.0


def test_a_tail_is_found():
    rng = random.Random(1)
    found = Quantile(0.99)
    for _ in range(10_000):
        found.record(rng.expovariate(100.0), 0.0)
    assert found.value(0.0) == pytest.approx(0.046, rel=0.15)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_nonsense_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        Quantile(share)
