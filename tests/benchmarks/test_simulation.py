"""The simulation, against theory and against itself; and a small version of each experiment."""

import json
import math
import random
import statistics
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.simulation.__main__ import simulate, tables
from benchmarks.simulation.callers import Habits
from benchmarks.simulation.engine import Engine
from benchmarks.simulation.experiments import (
    EXPERIMENTS,
    failing_run,
    restarting_run,
    subset_run,
)
from benchmarks.simulation.probing import AsksAlong, AsksFirst
from benchmarks.simulation.references import IdealP2C, ShortestQueue
from benchmarks.simulation.rivals import BelievedForever, Memory, Prequal, Probed
from benchmarks.simulation.runs import Task
from benchmarks.simulation.service import SERVICES, quantile
from benchmarks.simulation.size import QUICK
from benchmarks.simulation.tuning import KNOBS
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
    rng = random.Random(1)
    assert statistics.fmean(SERVICES[name](rng) for _ in range(50_000)) == pytest.approx(
        1.0, rel=0.05
    )


def test_quantiles_are_the_nearest_rank():
    assert [quantile([4.0, 1.0, 3.0, 2.0], share) for share in (0.25, 0.5, 0.99)] == [1.0, 2.0, 4.0]


def test_one_replica_is_the_queue_of_the_textbooks():
    # M/M/1: the mean time in the system is mean ÷ (1 - utilisation).
    setting = Setting(
        replicas=1, callers=1, utilisation=0.5, calls=25_000, service="exponential", wire=0.0
    )
    latencies = run(Random, setting).counted()
    assert statistics.fmean(latencies) == pytest.approx(setting.mean / 0.5, rel=0.1)
    assert quantile(latencies, 0.99) == pytest.approx(4.605 * setting.mean / 0.5, rel=0.15)


def test_random_splitting_is_as_many_queues_as_replicas():
    # Poisson arrivals that are split at random are Poisson arrivals.
    setting = Setting(
        replicas=20, callers=10, utilisation=0.5, calls=25_000, service="exponential", wire=0.0
    )
    assert statistics.fmean(run(Random, setting).counted()) == pytest.approx(
        setting.mean / 0.5, rel=0.1
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
        policy: run(policy, replace(SMALL, calls=10_000)).p99()
        for policy in (ShortestQueue, IdealP2C, LeastLoaded, LeastReported, Random)
    }
    assert p99[ShortestQueue] < p99[IdealP2C] < p99[Random]
    # A caller that is alone knows the true queues: its calls in flight are all there are.
    assert p99[LeastLoaded] == pytest.approx(p99[IdealP2C], rel=0.1)
    assert p99[LeastReported] < 1.1 * p99[IdealP2C]


def test_load_is_what_it_is_said_to_be():
    # Little's law: calls in the system = calls per second × mean time in the system.
    setting = replace(SMALL, calls=10_000, utilisation=0.6)
    world = World(setting, Habits(PeakEwma))
    sampled = []

    def sample():
        sampled.append(sum(server.in_flight for server in world.servers.values()))
        if world.engine.now < setting.seconds:
            world.engine.after(setting.mean / 3.0, sample)

    sample()
    seen = world.run()
    there = statistics.fmean(latency - 2.0 * setting.wire for latency in seen.latencies)
    assert statistics.fmean(sampled) == pytest.approx(setting.rate * there, rel=0.05)


@pytest.mark.parametrize("policy", [Random, LeastReported])
def test_a_limit_closes_the_gap_that_many_callers_open(policy):
    many = Setting(replicas=30, callers=60, calls=8_000)
    unlimited = run(Random, many).p99()
    assert run(policy, replace(many, limit=FixedLimit(3))).p99() < 0.5 * unlimited


def test_who_asks_two_replicas_first_knows_as_much_as_the_ideal():
    many = replace(SMALL, callers=60, calls=8_000)
    asking = World(many, Habits(Probed), AsksFirst)
    asking.run()
    assert asking.p99() == pytest.approx(run(IdealP2C, many).p99(), rel=0.15)
    assert not asking.seen.failed


def test_probes_beside_the_calls_are_worth_less_the_fewer_calls_a_caller_makes():
    few, many = (
        World(replace(SMALL, callers=callers, calls=8_000), Habits(Prequal), AsksAlong)
        for callers in (1, 300)
    )
    few.run()
    many.run()
    assert few.p99() < 0.8 * many.p99()


def test_memory_helps_the_only_caller():
    setting = replace(SMALL, calls=10_000)
    assert run(Memory, setting).p99() < run(BelievedForever, setting).p99()


def test_ejection_keeps_calls_from_those_that_fail():
    share = "share of calls to failing replicas"
    setting = replace(SMALL, callers=3, calls=4_000)
    with_it, without = (
        failing_run(Task("failing", "least loaded", setting, x))[share] for x in (1.0, 0.0)
    )
    assert with_it < 0.5 * without
    assert without > 1.2 / SMALL.replicas


def test_slow_start_is_for_the_cold():
    setting = Setting(replicas=20, callers=5, calls=5_000, mean=0.1, wire=0.001, utilisation=0.6)
    without, with_it = (
        restarting_run(Task("restarts", "random", setting, x))["p99"] for x in (0.0, 1.0)
    )
    assert with_it < 0.8 * without


def test_subsets_share_connections_out():
    setting = Setting(replicas=100, callers=100, calls=2_000)
    found = subset_run(Task("subsets", "peak EWMA", setting, 12))
    assert 0 < found["fewest connections"] < 12 < found["most connections"] < 36
    assert not found["failed calls"]


def knob(name, scene, value, **changes):
    setting = replace(KNOBS[name].setting, **{"calls": 6_000, **changes})
    return KNOBS[name].run(Task(name, scene, setting, value))


def test_a_failure_that_costs_more_is_met_less():
    share = "sick: share ÷ even share"
    cheap, dear = (knob("penalty", "two fail 30 %", value)[share] for value in (1.0, 5.0))
    assert dear < 0.6 * cheap


def test_a_short_memory_is_worse_than_none():
    p99 = "p99, mean calls"
    none, short = (knob("tau", "steady", value)[p99] for value in (0.0, 10.0))
    assert short > 1.2 * none


def test_few_calls_make_an_unfair_judge():
    wronged = "well but ejected, %"
    few, many = (
        knob("volume", "others fail 10 %", value, calls=12_000)[wronged] for value in (5.0, 50.0)
    )
    assert few > 0.5 > many


TINY = replace(QUICK, calls=300, seeds=(1,), callers=(1, 20), replicas=20, crowd=30, subsets=(12,))


def test_all_experiments_make_tables_json_and_plots(tmp_path):
    console = Console(record=True, width=140)
    rows = simulate(list(EXPERIMENTS), TINY, tmp_path, console)
    tables(rows, console)
    assert {row.experiment for row in rows} == set(EXPERIMENTS)
    document = json.loads((tmp_path / "report.json").read_text())
    assert len(document) == len(rows)
    assert set(document[0]) == {
        "experiment", "contender", "x", "metric", "median", "min", "max", "seeds",
    }  # fmt: skip
    assert all(row.min <= row.median <= row.max for row in rows if not math.isnan(row.median))
    for name in ("callers", "utilisation", "subsets"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
