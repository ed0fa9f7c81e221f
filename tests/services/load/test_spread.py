"""Calls by replica, counted in several processes and summed in one."""

import json
import random

import pytest

from shoal_gateway.load.spread import NOBODY, Latencies, Spread, as_csv, as_table, documents


def test_quantiles_are_one_percent_off_at_most():
    rng = random.Random(7)
    values = sorted(rng.lognormvariate(2.0, 1.5) for _ in range(4000))
    found = Latencies()
    for value in values:
        found.add(value)

    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = values[max(0, round(share * len(values)) - 1)]
        assert found.quantile(share) == pytest.approx(exact, rel=0.015)


def test_no_value_has_no_quantile_and_the_smallest_still_counts():
    found = Latencies()
    assert str(found.quantile(0.5)) == "nan"
    found.add(0.0)
    assert found.quantile(0.5) == pytest.approx(0.01, rel=0.02)


def test_what_processes_counted_is_the_same_as_counted_by_one():
    rng = random.Random(3)
    alone, whole = Spread(), Spread()
    workers = [Spread(), Spread()]
    for number in range(600):
        call = ("api", f"api-{rng.randrange(3)}", rng.uniform(1.0, 50.0))
        failed = rng.random() < 0.1
        alone.add(*call, failed=failed)
        workers[number % 2].add(*call, failed=failed)
        if number % 50 == 0:
            # As it goes over the wire.
            whole.merge(json.loads(json.dumps(workers[number % 2].take())))
    for worker in workers:
        whole.merge(worker.take())
        assert worker.take() == []

    assert whole.rows() == alone.rows()
    assert sum(row.calls for row in whole.rows()) == 600


def test_shares_are_within_a_service_and_failures_have_no_latency():
    spread = Spread()
    for _ in range(3):
        spread.add("api", "api-1", 10.0, failed=False)
    spread.add("api", NOBODY, 5.0, failed=True)
    spread.add("registry", "registry-1", 1.0, failed=False)

    nobody, first, registry = spread.rows()

    assert (nobody.replica, nobody.calls, nobody.share, nobody.failures) == (NOBODY, 1, 0.25, 1)
    assert nobody.median_ms is None
    assert nobody.p95_ms is None
    assert (first.share, first.failures) == (0.75, 0)
    assert first.median_ms == pytest.approx(10.0, rel=0.015)
    assert registry.share == 1.0


def test_it_is_told_to_people_and_to_programs():
    spread = Spread()
    assert as_table(spread.rows()) == "No call was made, so there is no spread over replicas.\n"
    spread.add("api", "api-1", 10.0, failed=False)
    spread.add("api", NOBODY, 10.0, failed=True)
    rows = spread.rows()

    table = as_table(rows).splitlines()
    assert table[0].split() == ["service", "replica", "calls", "share", "failed", "median", "ms",
                                "p95", "ms"]  # fmt: skip
    assert table[1].split() == ["api", "-", "1", "50.0%", "1", "-", "-"]
    assert as_csv(rows).splitlines()[1] == "api,-,1,0.5,1,,"
    assert documents(rows)[0]["median_ms"] is None
