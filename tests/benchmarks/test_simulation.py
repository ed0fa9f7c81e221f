"""The simulation, against theory and against itself; and a small version of each experiment."""

import json
import statistics
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.simulation.__main__ import simulate, tables
from benchmarks.simulation.callers import Habits
from benchmarks.simulation.engine import Engine
from benchmarks.simulation.experiments import EXPERIMENTS
from benchmarks.simulation.references import IdealP2C, ShortestQueue
from benchmarks.simulation.service import SERVICES, quantile
from benchmarks.simulation.size import QUICK
from benchmarks.simulation.world import Setting, World
from shoal_balancer import LeastLoaded, LeastReported, PeakEwma, Random
from shoal_balancer.limit import FixedLimit

SMALL = Setting(replicas=30, callers=1, calls=5_000)


def run(policy, setting=SMALL, **habits):
    world = World(setting, Habits(policy, **habits))
    world.run()
    return world


def test_events_run_in_the_order_of_their_times_and_of_their_setting():
    engine, seen = Engine(), []
    for delay, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "never")):
        engine.after(delay, seen.append, name)
    engine.after(0.5, lambda: engine.after(0.1, seen.append, "set by another"))
    engine.run(5.0)
    assert seen == ["set by another", "a", "b", "c"]
    assert engine.now == 5.0


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_the_mean_one(name):
    import random

    rng = random.Random(1)
    assert statistics.fmean(SERVICES[name](rng) for _ in range(50_000)) == pytest.approx(
        1.0, rel=0.05
    )


def test_quantiles_are_the_nearest_rank():
    assert [quantile([4.0, 1.0, 3.0, 2.0], share) for share in (0.25, 0.5, 0.99)] == [1.0, 2.0, 4.0]


def test_one_replica_is_the_queue_of_the_textbooks():
    # M/M/1: the mean time in the system is mean ÷ (1 - utilisation).
    setting = Setting(
        replicas=1, callers=1, utilisation=0.5, calls=60_000, service="exponential", wire=0.0
    )
    latencies = run(Random, setting).counted()
    assert statistics.fmean(latencies) == pytest.approx(setting.mean / 0.5, rel=0.08)
    assert quantile(latencies, 0.99) == pytest.approx(4.605 * setting.mean / 0.5, rel=0.15)


def test_random_splitting_is_as_many_queues_as_replicas():
    # Poisson arrivals that are split at random are Poisson arrivals.
    setting = Setting(
        replicas=20, callers=10, utilisation=0.5, calls=60_000, service="exponential", wire=0.0
    )
    assert statistics.fmean(run(Random, setting).counted()) == pytest.approx(
        setting.mean / 0.5, rel=0.08
    )


def test_a_seed_is_a_run():
    first, again, other = run(PeakEwma), run(PeakEwma), run(PeakEwma, replace(SMALL, seed=2))
    assert first.seen == again.seen
    assert first.seen != other.seen


def test_every_call_ends_and_nothing_stays_behind():
    world = run(PeakEwma, replace(SMALL, callers=7, limit=FixedLimit(2)))
    seen = world.seen
    assert len(seen.latencies) + seen.failed == pytest.approx(SMALL.calls, rel=0.05)
    assert seen.attempts == len(seen.latencies) + seen.refused
    assert seen.refused == sum(server.refused for server in world.servers.values()) > 0
    assert {server.in_flight for server in world.servers.values()} == {0}
    nodes = [node for caller in world.callers for node in caller.balancer.snapshot.nodes]
    assert {node.in_flight for node in nodes} == {0}


def test_the_bound_is_one_and_knowledge_is_worth_something():
    p99 = {
        policy: run(policy, replace(SMALL, calls=20_000)).p99()
        for policy in (ShortestQueue, IdealP2C, LeastLoaded, LeastReported, Random)
    }
    assert p99[ShortestQueue] < p99[IdealP2C] < p99[Random]
    # A caller that is alone knows the true queues: its calls in flight are all there are.
    assert p99[LeastLoaded] == pytest.approx(p99[IdealP2C], rel=0.1)
    assert p99[LeastReported] < 1.1 * p99[IdealP2C]


def test_a_limit_closes_the_gap_that_many_callers_open():
    many = Setting(replicas=50, callers=100, calls=15_000)
    random = run(Random, many).p99()
    with_limit = run(LeastReported, replace(many, limit=FixedLimit(3))).p99()
    assert with_limit < 0.5 * random


def test_the_small_version_of_all_experiments(tmp_path):
    console = Console(record=True, width=140)
    rows = simulate(list(EXPERIMENTS), QUICK, tmp_path, console)
    tables(rows, console)
    assert {row.experiment for row in rows} == set(EXPERIMENTS)
    document = json.loads((tmp_path / "report.json").read_text())
    assert len(document) == len(rows)
    assert set(document[0]) == {
        "experiment", "contender", "x", "metric", "median", "min", "max", "seeds",
    }  # fmt: skip
    assert all(row.min <= row.median <= row.max for row in rows)
    for name in ("callers", "utilisation", "subsets"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000

    def figure(experiment, contender, x, metric):
        (found,) = (
            row.median
            for row in rows
            if (row.experiment, row.contender, row.x, row.metric)
            == (experiment, contender, x, metric)
        )
        return found

    share = "share of calls to failing replicas"
    # A thirtieth of the replicas fails; ejection leaves it a part of its share.
    assert figure("failing", "least loaded", 1.0, share) < figure(
        "failing", "least loaded", 0.0, share
    )
    # Slow start is for cold replicas.
    cold = "p99, mean calls"
    assert figure("restarts", "random", 1.0, cold) < figure("restarts", "random", 0.0, cold)
    assert figure("subsets", "peak EWMA", 12.0, "most connections") < 40
