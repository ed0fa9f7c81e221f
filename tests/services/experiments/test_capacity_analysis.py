"""What a capacity run's history says."""

import pytest

from shoal_gateway.experiments.capacity_analysis import (
    Knee,
    Load,
    first_failing,
    knee,
    percentiles,
    result,
    saturated,
)


def job(number, scheduled, latency=None, state="SUCCEEDED"):
    """A job's records; without a latency it has no end."""
    yield {"kind": "submit", "number": number, "scheduled": scheduled}
    yield {"kind": "acknowledged", "number": number, "job_id": str(number)}
    if latency is not None:
        yield {"kind": "terminal", "number": number, "state": state, "at": scheduled + latency}


def records(*jobs):
    return [record for each in jobs for record in each]


def test_a_fleet_that_keeps_up_achieves_what_is_offered_however_long_a_job_takes():
    found = result(records(*(job(n, 100.0 + n * 0.5, 0.7) for n in range(11))), 11, 20.0)

    assert found.offered == pytest.approx(2.0)
    assert found.achieved == pytest.approx(2.0)
    assert (found.acknowledged, found.succeeded, found.failed, found.failures) == (11, 11, 0, {})
    assert found.latency["p50"] == found.latency["max"] == pytest.approx(0.7)
    assert found.window == (100.0, pytest.approx(105.7))


def test_a_fleet_that_does_not_keep_up_achieves_less():
    # One a second, though two a second arrive.
    found = result(records(*(job(n, n * 0.5, 1.0 + n * 0.5) for n in range(11))), 11, 20.0)

    assert found.offered == pytest.approx(2.0)
    assert found.achieved == pytest.approx(1.0)


def test_nobody_achieves_more_than_comes_though_all_ends_are_seen_at_once():
    found = result(records(*(job(n, n * 0.5, 6.0 - n * 0.5) for n in range(11))), 11, 20.0)

    assert found.achieved == found.offered == pytest.approx(2.0)


def test_a_burst_counts_from_its_arrival():
    found = result(records(*(job(n, 7.0, 0.5 * (n + 1)) for n in range(10))), 10, 20.0)

    assert found.offered == 0.0
    assert found.achieved == pytest.approx(10 / 5.0)


def test_each_way_to_fail_is_counted():
    rejected = [
        {"kind": "submit", "number": 4, "scheduled": 4.0},
        {"kind": "rejected", "number": 4, "code": "UNAVAILABLE"},
    ]
    found = result(
        records(
            job(0, 0.0, 1.0), job(1, 1.0, 20.5), job(2, 2.0, 1.0, "DEAD"), job(3, 3.0), rejected
        ),
        5,
        20.0,
    )

    assert found.failures == {
        "later than 20 s": 1,
        "ended DEAD": 1,
        "no end": 1,
        "rejected: UNAVAILABLE": 1,
    }
    assert (found.acknowledged, found.succeeded, found.failed) == (4, 1, 4)
    # The late one is slow and seen to be slow; what never succeeded has no latency.
    assert found.latency["max"] == 20.5


def test_without_a_success_there_is_no_rate_and_no_latency():
    found = result(records(job(0, 0.0), job(1, 1.0)), 2, 20.0)
    assert (found.achieved, found.latency, found.succeeded) == (0.0, {}, 0)


@pytest.mark.parametrize(
    "history",
    [records(job(0, 0.0, 1.0)), records(job(0, 0.0, 1.0), job(0, 0.0, 1.0))],
    ids=["missing", "twice"],
)
def test_a_history_that_does_not_hold_each_arrival_once_is_refused(history):
    with pytest.raises(ValueError, match="history"):
        result(history, 2, 20.0)


def test_percentiles_are_values_that_were_seen():
    assert percentiles([]) == {}
    assert percentiles([float(n) for n in range(100, 0, -1)]) == {
        "p50": 50.0,
        "p95": 95.0,
        "p99": 99.0,
        "max": 100.0,
    }


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        # (offered, achieved, share that succeeded), in any order.
        ([(4.0, 2.9, 1.0), (1.0, 1.0, 1.0), (2.0, 1.96, 1.0)], Knee(2.0, 4.0, 2.9)),
        # As fast as ever, at the price of jobs.
        ([(1.0, 1.0, 1.0), (2.0, 2.0, 0.9)], Knee(1.0, 2.0, 2.0)),
        ([(1.0, 1.0, 1.0), (2.0, 1.9, 0.95)], Knee(2.0, None, 1.9)),
        ([(3.0, 1.0, 1.0)], Knee(None, 3.0, 1.0)),
        # What is kept up with beyond the knee is luck.
        ([(1.0, 1.0, 1.0), (2.0, 1.5, 1.0), (3.0, 3.0, 1.0)], Knee(1.0, 2.0, 3.0)),
    ],
)
def test_the_knee_is_between_the_last_rate_kept_up_with_and_the_next(points, expected):
    assert knee(points) == expected


def test_a_knee_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        knee([])


def test_the_first_failing_n_is_the_smallest():
    assert first_failing([(80, 9), (20, 0), (40, 1)]) == 40
    assert first_failing([(80, 0), (20, 0)]) is None


def load(*, machine=1.0, busiest=0.3, slots_used=0.5, queued=0.0):
    services = {"registry": 0.3, "jobs": 0.6, "api": 0.1}
    return Load(machine, 2, services, ("registry-1", busiest), slots_used, 6, queued, 9)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (load(), []),
        (load(machine=1.9), ["the machine: 1.90 of 2 processors are busy, most with jobs 0.60"]),
        (load(busiest=0.95), ["registry-1: one Python process"]),
        (load(slots_used=0.8, queued=4.0), ["appmanager: 80% of its 6 slots hold a job, and 4.0"]),
        (load(queued=4.0), ["dispatch: 4.0 jobs wait though only 50% of the 6 slots"]),
        # A full machine explains why jobs wait while slots are free.
        (load(machine=1.9, queued=4.0), ["the machine"]),
        (load(machine=1.9, slots_used=0.8), ["the machine", "appmanager"]),
    ],
)
def test_what_is_full_is_named(seen, expected):
    found = saturated(seen)
    assert len(found) == len(expected)
    assert all(said.startswith(start) for said, start in zip(found, expected, strict=True))
