"""The limit on calls at once: fixed, and as Netflix's Gradient2 has it."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_balancer.limit import AdaptiveLimit, Average, FixedLimit, Gradient2, room

latencies = st.floats(1e-4, 100.0)
rules = st.builds(
    lambda least, above, over, **rest: AdaptiveLimit(
        initial=least + above, least=least, most=least + above + over, **rest
    ),
    least=st.integers(1, 50),
    above=st.integers(0, 50),
    over=st.integers(0, 200),
    tolerance=st.floats(1.0, 3.0),
    queue=st.integers(0, 10),
    smoothing=st.floats(0.01, 1.0),
    long=st.integers(1, 600),
)


def steady(rule, latency=0.1, steps=50):
    """A limit that knows what is usual, with all its places taken."""
    limit = Gradient2(rule)
    for _ in range(steps):
        limit.update(latency, limit.limit)
    return limit


class TestAverage:
    # ExpAvgMeasurementTest of the source: mean of the first 10, then weight 2 / (n + 1).
    def test_the_first_are_their_mean(self):
        average = Average(100)
        assert [average.add(value) for value in (1.0, 2.0, 3.0)] == [1.0, 1.5, 2.0]

    def test_later_ones_have_their_weight(self):
        average = Average(9)
        for _ in range(10):
            average.add(10.0)
        assert average.add(20.0) == pytest.approx(10.0 + 10.0 * 2.0 / 10.0)

    @given(st.lists(latencies, min_size=1, max_size=100), st.integers(1, 600))
    def test_it_stays_between_what_it_saw(self, samples, size):
        average = Average(size)
        for sample in samples:
            average.add(sample)
        assert min(samples) * (1 - 1e-9) <= average.value <= max(samples) * (1 + 1e-9)


class TestGradient:
    def test_one_step_up_is_the_share_of_the_queue(self):
        rule = AdaptiveLimit(initial=20, least=1, most=200, queue=4, smoothing=0.2)
        limit = Gradient2(rule)
        limit.update(0.1, 20)
        # 20 × 0.8 + (20 × 1.0 + 4) × 0.2
        assert limit._estimate == pytest.approx(20.8)
        assert limit.limit == 20

    def test_one_step_down_follows_the_gradient(self):
        rule = AdaptiveLimit(initial=100, least=1, most=100, queue=4, smoothing=0.2)
        limit = steady(rule, latency=0.1)
        limit.update(0.2, 100)
        gradient = 1.5 * limit.usual / 0.2
        assert 0.5 < gradient < 1.0
        assert limit._estimate == pytest.approx(100 * 0.8 + (100 * gradient + 4) * 0.2)

    def test_a_step_down_takes_at_most_half_of_the_share(self):
        rule = AdaptiveLimit(initial=100, least=1, most=100, queue=0, smoothing=0.2)
        limit = steady(rule, latency=0.1)
        limit.update(1000.0, 100)
        assert limit._estimate == pytest.approx(100 * 0.8 + 100 * 0.5 * 0.2)

    def test_latency_within_the_tolerance_does_not_lower_it(self):
        limit = steady(AdaptiveLimit(most=500, initial=100), latency=0.1)
        before = limit.limit
        limit.update(0.149, limit.limit)
        assert limit.limit >= before

    def test_it_does_not_grow_while_half_of_it_is_idle(self):
        limit = Gradient2(AdaptiveLimit(initial=20))
        for _ in range(100):
            limit.update(0.1, 9)
        assert limit.limit == 20
        limit.update(0.1, 10)
        assert limit._estimate > 20.0

    def test_it_does_not_shrink_either_while_half_of_it_is_idle(self):
        limit = steady(AdaptiveLimit(initial=20), steps=10)
        before = limit.limit
        limit.update(100.0, before // 2 - 1)
        assert limit.limit == before

    def test_the_usual_comes_down_fast_when_the_load_is_over(self):
        limit = steady(AdaptiveLimit(), latency=10.0)
        slow = Average(600)
        for _ in range(50):
            slow.add(10.0)
        for _ in range(30):
            limit.update(0.1, 1)
            slow.add(0.1)
        assert limit.usual < slow.value * 0.3

    def test_it_finds_what_a_server_can_do(self):
        """A server of 40 places: calls beyond them wait. The limit ends near, far from the most."""
        limit = Gradient2(AdaptiveLimit(initial=10, least=1, most=1000))
        found = []
        for _ in range(200):
            in_flight = limit.limit
            limit.update(0.05 * max(1.0, in_flight / 40.0), in_flight)
            found.append(limit.limit)
        assert min(found[50:]) >= 40
        assert max(found[50:]) <= 90

    @given(rules, st.lists(st.tuples(latencies, st.integers(0, 500)), max_size=200))
    def test_it_stays_between_its_bounds(self, rule, measured):
        limit = Gradient2(rule)
        for latency, in_flight in measured:
            limit.update(latency, in_flight)
            assert rule.least <= limit.limit <= rule.most

    @given(rules, st.lists(latencies, min_size=1, max_size=50))
    def test_a_slower_last_call_never_ends_in_a_higher_limit(self, rule, measured):
        fast, slow = Gradient2(rule), Gradient2(rule)
        for latency in measured[:-1]:
            fast.update(latency, 500)
            slow.update(latency, 500)
        fast.update(measured[-1], 500)
        slow.update(measured[-1] * 10.0, 500)
        assert slow._estimate <= fast._estimate * (1 + 1e-9)

    @given(rules, latencies)
    def test_under_an_even_load_it_rises_to_the_most(self, rule, latency):
        limit = Gradient2(rule)
        before = limit._estimate
        for _ in range(20):
            limit.update(latency, 500)
            assert limit._estimate >= before * (1 - 1e-9)
            before = limit._estimate


class TestWindows:
    rule = AdaptiveLimit(initial=20, least=1, window=1.0, samples=10)

    def limiter(self, rule=None):
        return (rule or self.rule).limiter(threading.Lock())

    def test_the_limit_moves_once_a_window(self):
        limiter = self.limiter()
        for number in range(11):
            limiter.sample(0.1, 20, number * 0.09)
        assert limiter._gradient.usual == 0.0
        limiter.sample(0.1, 20, 1.0)
        assert limiter._gradient.usual == pytest.approx(0.1)

    def test_a_window_waits_for_enough_calls(self):
        limiter = self.limiter()
        for number in range(9):
            limiter.sample(0.1, 20, float(number))
        assert limiter._gradient.usual == 0.0
        limiter.sample(0.1, 20, 9.0)
        assert limiter._gradient.usual > 0.0

    def test_it_measures_the_mean_and_the_most_in_flight(self):
        limiter = self.limiter()
        for number in range(10):
            limiter.sample(0.1 * (number + 1), number, number / 9.0)
        assert limiter._gradient.latency == pytest.approx(0.55)
        # 9 in flight are fewer than half of 20.
        assert limiter.limit == 20

    def test_calls_that_did_nothing_are_passed_over(self):
        limiter = self.limiter()
        for number in range(100):
            limiter.sample(0.00005, 20, number / 10.0)
        assert limiter._count == 0

    def test_pushback_is_about_the_time_of_a_call(self):
        limiter = self.limiter()
        assert limiter.pushback == 0.01
        for latency, expected in ((0.3, 0.3), (60.0, 1.0)):
            for number in range(10):
                limiter.sample(latency, 20, 10.0 * latency + number / 9.0)
            assert limiter.pushback == pytest.approx(expected)

    def test_no_call_is_lost_between_threads(self):
        limiter = self.limiter(AdaptiveLimit(window=1e9, samples=10**9))
        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(lambda: [limiter.sample(0.5, 1, 0.0) for _ in range(2000)])
        assert limiter._count == 16_000
        assert limiter._sum == 8_000.0


class TestArguments:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"least": 0},
            {"initial": 3, "least": 4},
            {"initial": 201},
            {"tolerance": 0.9},
            {"tolerance": math.nan},
            {"smoothing": 0.0},
            {"smoothing": 1.1},
            {"queue": -1},
            {"long": 0},
            {"window": 0.0},
            {"samples": 0},
        ],
    )
    def test_adaptive(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AdaptiveLimit(**wrong)

    @pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1, "pushback": -1.0}])
    def test_fixed(self, wrong):
        with pytest.raises(ValueError, match="at least"):
            FixedLimit(**wrong)

    def test_a_fixed_limit_learns_nothing(self):
        limiter = FixedLimit(3, pushback=0.2).limiter(threading.Lock())
        limiter.sample(100.0, 3, 0.0)
        assert (limiter.limit, limiter.pushback) == (3, 0.2)


def test_room_grows_by_half_a_limit_with_each_try_up_to_twice_the_limit():
    assert [room(10, attempt) for attempt in range(1, 6)] == [10, 15, 20, 20, 20]
    assert [room(1, attempt) for attempt in range(1, 4)] == [1, 1, 2]
