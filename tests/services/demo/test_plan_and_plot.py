"""The fault plan is seeded and within the run; the picture is drawn."""

import random

import pytest

from shoal_gateway.demo.faults import plan
from shoal_gateway.demo.plot import Mark, buckets, draw


@pytest.mark.parametrize("seed", range(50))
def test_every_service_and_a_host_are_hit_between_10_and_90_percent(seed):
    faults = plan(random.Random(seed))
    assert sorted(fault.kind for fault in faults) == [
        "api",
        "appmanager",
        "host",
        "registry",
        "scheduler",
    ]
    assert all(0.1 < fault.after < 0.9 for fault in faults)
    assert faults == sorted(faults, key=lambda fault: fault.after)


def test_the_same_seed_gives_the_same_plan():
    assert plan(random.Random(7)) == plan(random.Random(7))
    assert plan(random.Random(7)) != plan(random.Random(8))


def test_successes_fall_into_their_seconds():
    assert buckets([0.0, 0.9, 1.0, 3.2], 3.5) == [2, 1, 0, 1]


def test_the_picture_is_a_png(tmp_path):
    path = tmp_path / "deep" / "throughput.png"
    draw(path, [1.0, 2.5], [Mark(1.2, "x killed", fault=True)], 3.0, "two jobs")
    assert path.read_bytes().startswith(b"\x89PNG")
