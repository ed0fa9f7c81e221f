"""For how long a replica must pass the gates, and when it has failed them."""

import pytest

from shoal_gateway.fleet.gate import Look, Patience, Track
from shoal_gateway.fleet.rollout import Health

GOOD, BAD, DEAD = (
    Look(),
    Look("health: it says NOT_SERVING"),
    Look("process: it has ended", dead=True),
)


def after(*looks, healthy=3.0, deadline=10.0):
    track = Track(Patience(healthy, deadline), since=0.0)
    for at, found in looks:
        track = track.seen(found, at)
    return track


def test_it_is_healthy_after_the_whole_time_without_a_break():
    assert after((1.0, GOOD), (3.9, GOOD)).health is Health.STARTING
    assert after((1.0, GOOD), (4.0, GOOD)).health is Health.HEALTHY
    broken = after((1.0, GOOD), (3.0, BAD), (3.5, GOOD), (6.0, GOOD))
    assert broken.health is Health.STARTING
    assert broken.seen(GOOD, 6.5).health is Health.HEALTHY


def test_a_dead_one_has_failed_at_once_and_stays_so():
    track = after((1.0, GOOD), (2.0, DEAD), (9.0, GOOD))
    assert track.health is Health.FAILED
    assert "ended" in track.fault


def test_one_that_never_serves_has_failed_at_the_deadline_and_the_gate_is_named():
    assert after((9.9, BAD)).health is Health.STARTING
    track = after((9.9, BAD), (10.0, BAD))
    assert (track.health, track.fault) == (Health.FAILED, BAD.fault)


def test_one_that_flaps_has_failed_at_the_deadline_too():
    track = after(*((float(at), GOOD if at % 2 else BAD) for at in range(1, 12)))
    assert track.health is Health.FAILED


def test_one_that_was_healthy_has_the_whole_deadline_again():
    looks = [(1.0, GOOD), (4.0, GOOD), (20.0, GOOD), (21.0, BAD), (29.0, BAD)]
    assert after(*looks).health is Health.STARTING
    assert after(*looks, (30.0, BAD)).health is Health.FAILED


def test_what_runs_already_needs_no_time():
    assert after((0.0, GOOD), healthy=0.0).health is Health.HEALTHY


def test_a_deadline_that_nobody_could_keep_is_refused():
    with pytest.raises(ValueError, match="the deadline must be longer"):
        Patience(5.0, 5.0)
