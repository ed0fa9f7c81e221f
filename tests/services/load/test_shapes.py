"""How many users there are at which moment."""

import pytest

from shoal_gateway.load.shapes import Soak, Spike, Steps


@pytest.mark.parametrize(
    ("shape", "course"),
    [
        (Steps(5, 3, 10.0), {0.0: 5, 9.9: 5, 10.0: 10, 29.9: 15, 30.0: None}),
        (Spike(2, 50, 10.0), {0.0: 2, 9.9: 2, 10.0: 50, 19.9: 50, 20.0: 2, 30.0: None}),
        (Soak(10, 20.0, 100.0), {0.0: 1, 10.0: 5, 20.0: 10, 119.9: 10, 120.0: None}),
        (Soak(3, 0.0, 5.0), {0.0: 3, 5.0: None}),
    ],
)
def test_users_over_time(shape, course):
    assert {at: shape.users(at) for at in course} == course
