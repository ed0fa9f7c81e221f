import math

import pytest

from shoal.refusal import PUSHBACK_KEY, REFUSED_KEY, pushback_in, refusal_in, trailers


def test_a_refusal_is_read_back_from_its_trailers():
    assert refusal_in(trailers("full")) == "full"
    assert pushback_in(trailers("full")) is None
    assert pushback_in(trailers("full", 0.25)) == 0.25


def test_pushback_is_rounded_up_so_that_nobody_comes_early():
    assert trailers("full", 0.0001) == ((REFUSED_KEY, "full"), (PUSHBACK_KEY, "1"))


@pytest.mark.parametrize("value", ["-1", "soon", ""])
def test_a_pushback_that_forbids(value):
    assert pushback_in([(PUSHBACK_KEY, value)]) == math.inf


@pytest.mark.parametrize("metadata", [None, (), (("other", "1"),)])
def test_ordinary_errors_refuse_nothing(metadata):
    assert refusal_in(metadata) is None
    assert pushback_in(metadata) is None
