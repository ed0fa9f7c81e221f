"""The balancer's decisions as data: tests/specs/*.json, each case with its own story."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import pytest

from shoal_balancer import Ejection, Node, Outcome, RetryBudget
from shoal_balancer.choice import LeastLoaded, PeakEwma, RoundRobin
from shoal_balancer.choice import Random as AnyOf
from shoal_balancer.load import PeakEwma as PeakEwmaLoad
from tests.balancer.helpers import Hand, balancer, names, node_of, replica

SPECS = Path(__file__).parents[1] / "specs"
POLICIES = {
    "peak_ewma": PeakEwma,
    "least_loaded": LeastLoaded,
    "round_robin": RoundRobin,
    "random": AnyOf,
}


def cases(name):
    """Each case of a file as a pytest parameter, named by the case."""
    read = json.loads((SPECS / f"{name}.json").read_text())
    return [pytest.param(case, id=case["case"]) for case in read["cases"]]


def test_every_spec_has_a_runner():
    assert {path.stem for path in SPECS.glob("*.json")} == {
        "update",
        "ejection",
        "ewma",
        "budget",
        "choice",
    }


@pytest.mark.parametrize("case", cases("update"))
def test_update(case):
    clock = Hand(0.0)
    made = balancer(clock=clock, reserve=case.get("reserve", 10.0))
    seen = {}
    for step in case["steps"]:
        clock.now = step.get("at", clock.now)
        before = set(made.snapshot.everyone().values())
        for name, latency in step.get("calls", {}).items():
            node = node_of(made, name)
            node.begin()
            node.end(latency, Outcome.OK, clock.now)
            seen[name] = node
        left = []
        if "observe" in step:
            left = made.update([replica(**_facts(given)) for given in step["observe"]])
        elif step.get("tick"):
            left = made.tick()
        snapshot = made.snapshot
        expect = step.get("expect", {})
        found = {
            "nodes": names(snapshot.nodes),
            "ready": names(snapshot.ready),
            "reserve": names(entry.node for entry in snapshot.reserve),
            "left": names(left),
            "made": names(node for node in snapshot.nodes if node not in before),
            "in_use": names(entry.node for entry in snapshot.reserve if entry.usable),
            "welcome": sorted(names(n for n in snapshot.everyone().values() if not n.retired)),
            "picks": made.pick(clock.now) is not None,
            "retired": [
                name for name in expect.get("retired", []) if node_of_any(seen, made, name)
            ],
            "history_kept": [
                name for name in expect.get("history_kept", []) if node_of(made, name) is seen[name]
            ],
            "history_lost": [
                name
                for name in expect.get("history_lost", [])
                if node_of(made, name) is not seen[name] and node_of(made, name).calls == 0
            ],
        }
        for what, value in expect.items():
            if what == "estimate":
                for name, estimate in value.items():
                    assert node_of(made, name).load.estimate(clock.now) == pytest.approx(estimate)
            else:
                assert found[what] == value, (what, step)


def node_of_any(seen, made, name):
    """Whether the node that a test knows under a name is retired."""
    return (seen.get(name) or node_of(made, name)).retired


def _facts(given):
    return {"name": given} if isinstance(given, str) else given


@pytest.mark.parametrize("case", cases("ejection"))
def test_ejection(case):
    clock = Hand(0.0)
    rule = case.get("rule", {})
    rule = None if rule is None else Ejection(**rule)
    # Jitter is a fifth either way; the middle makes times exact.
    made = balancer(case["replicas"], clock=clock, ejection=rule, rng=_Middle())
    for step in case["steps"]:
        clock.now = step.get("at", clock.now)
        _happen(made, step)
        expect = step.get("expect", {})
        if "ready" in expect:
            assert names(made.snapshot.ready) == expect["ready"], step
        if "refresh_at" in expect:
            assert made.snapshot.refresh_at == pytest.approx(expect["refresh_at"]), step
        if "ejected" in expect:
            ejected = names(n for n in made.snapshot.nodes if n.health.ejected)
            assert ejected == expect["ejected"], step


def _happen(made, step):
    """What a step of an ejection's story does, in the order in which it is written here."""
    now = made.clock()
    for name, outcomes in step.get("calls", {}).items():
        for outcome in outcomes:
            node_of(made, name).begin()
            node_of(made, name).end(0.01, Outcome[outcome], now)
    for name in step.get("begin", []):
        node_of(made, name).begin()
    for name, outcomes in step.get("end", {}).items():
        for outcome in outcomes:
            node_of(made, name).end(0.01, Outcome[outcome], now)
    if "observe" in step:
        made.update([replica(**_facts(given)) for given in step["observe"]])
    if "pick" in step:
        picked = made.pick(now, [node_of(made, name) for name in step.get("tried", [])])
        assert picked is not None
        assert picked.replica.id == step["pick"], step
        picked.begin()
        if "outcome" in step:
            picked.end(0.01, Outcome[step["outcome"]], now)


class _Middle(random.Random):
    def random(self):
        return 0.5


class _Scripted(random.Random):
    def random(self):
        return self.draws.pop(0)


@pytest.mark.parametrize("case", cases("ewma"))
def test_ewma(case):
    load = PeakEwmaLoad(case["tau"])
    for step in case["steps"]:
        now = step["at"]
        if "observe" in step:
            load.observe(step["observe"], now)
        if "penalize" in step:
            load.penalize(step["penalize"], now)
        if "seed" in step:
            load.seed(step["seed"], now)
        if "cost" in step:
            cost = load.cost(step.get("in_flight", 0), now)
            assert cost == pytest.approx(step["cost"], rel=1e-3), step
        if "estimate" in step:
            assert load.estimate(now) == step["estimate"]


@pytest.mark.parametrize("case", cases("budget"))
def test_budget(case):
    clock = Hand(0.0)
    budget = RetryBudget(clock=clock, lock=contextlib.nullcontext(), **case["budget"])
    for step in case["steps"]:
        clock.now = step.get("at", clock.now)
        for _ in range(step.get("calls", 0)):
            budget.deposit()
        if "withdraw" in step:
            granted = sum(budget.withdraw() for _ in range(step["withdraw"]))
            assert granted == step["granted"], step
        if "balance" in step:
            assert budget.balance() == pytest.approx(step["balance"]), step


@pytest.mark.parametrize("case", cases("choice"))
def test_choice(case):
    policy = POLICIES[case["policy"]]()
    rng = random.Random(case.get("seed", 1))
    nodes = []
    for name, state in case["nodes"].items():
        node = Node(replica(name), None, policy.load(), None)
        for _ in range(state.get("in_flight", 0)):
            node.begin()
        if "latency" in state:
            node.load.observe(state["latency"], 0.0)
        nodes.append(node)
    if "draws" in case:
        rng = _Scripted()
        rng.draws = list(case["draws"])
        assert [policy.choose(nodes, 0.0, rng).replica.id for _ in case["chosen"]] == case["chosen"]
        assert not rng.draws
        return
    picks = [policy.choose(nodes, 0.0, rng).replica.id for _ in range(case["picks"])]
    for name, (least, most) in case["share"].items():
        assert least <= picks.count(name) / len(picks) <= most, name
    if case.get("in_turn"):
        again = picks[len(nodes) :]
        assert again == picks[: len(again)]
