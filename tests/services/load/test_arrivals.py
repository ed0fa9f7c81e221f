"""When jobs arrive, and who sends them."""

import itertools
import statistics

import pytest

from shoal_gateway.load.arrivals import arrivals, share


def test_poisson_arrivals_are_replayable_and_as_many_as_asked_for():
    moments = arrivals(5.0, 4000, kind="poisson", seed=11)

    assert moments == arrivals(5.0, 4000, kind="poisson", seed=11)
    assert moments != arrivals(5.0, 4000, kind="poisson", seed=12)
    assert moments[0] == 0.0
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert statistics.mean(gaps) == pytest.approx(0.2, rel=0.05)
    # Memoryless: the gaps scatter as much as they are long.
    assert statistics.stdev(gaps) == pytest.approx(0.2, rel=0.1)


def test_constant_arrivals_are_evenly_spaced_and_a_burst_comes_at_once():
    assert arrivals(4.0, 4, kind="constant", seed=1) == [0.0, 0.25, 0.5, 0.75]
    assert arrivals(0.0, 3, kind="poisson", seed=1) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("rate", "kind"), [(-1.0, "poisson"), (1.0, "uniform")])
def test_what_makes_no_sense_is_refused(rate, kind):
    with pytest.raises(ValueError, match=r"arrivals"):
        arrivals(rate, 5, kind=kind, seed=1)


def test_shares_are_disjoint_and_whole():
    moments = arrivals(5.0, 10, kind="poisson", seed=2)
    parts = [share(moments, index, 3) for index in range(3)]

    assert sorted(itertools.chain(*parts)) == list(enumerate(moments))
