"""The experiments: which worlds are run for which contenders, and what is looked at."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.simulation.callers import Habits
from benchmarks.simulation.habits import BOUND, CONTENDERS, IDEAL, RANDOM, RIVALS
from benchmarks.simulation.runs import Measured, Row, Task, Tick, plain, row, spread
from benchmarks.simulation.service import quantile
from benchmarks.simulation.size import Size
from benchmarks.simulation.tuning import KNOBS, tuned
from benchmarks.simulation.world import Setting, World
from shoal_balancer import AdaptiveLimit, FixedLimit, Limit, PeakEwma, Subset


def _against(
    rows: Sequence[tuple[Task, list[Measured]]], bounds: dict[float, list[float]]
) -> list[Row]:
    """Each p99 over the bound's of the same seed, and what was refused and failed."""
    made = []
    for task, found in rows:
        ratios = [each["p99"] / bound for each, bound in zip(found, bounds[task.x], strict=True)]
        made.append(row(task, "p99 ÷ bound", ratios))
        made += [
            row(task, metric, [each[metric] for each in found])
            for metric in ("refusals per call", "failed calls")
            if any(each[metric] for each in found)
        ]
    return made


def callers(size: Size, tick: Tick) -> list[Row]:
    """More and more callers share the same load, and know less and less of it."""
    usual = size.usual
    # Who sees the true queues does not care how many callers there are.
    bound = Task("callers", BOUND, replace(usual, callers=1), 0)
    ((_, found),) = spread(plain, [bound], size.seeds, tick)
    bounds = {float(count): [each["p99"] for each in found] for count in size.callers}
    tasks = [
        Task("callers", name, replace(usual, callers=count), count)
        for name in CONTENDERS
        if name != BOUND
        for count in size.callers
        if name != IDEAL or count == 1
    ]
    return _against(spread(plain, tasks, size.seeds, tick), bounds)


def candidates(size: Size, tick: Tick) -> list[Row]:
    """What was tried for many callers, and each part of what was kept alone."""
    return _compared(
        "candidates",
        size,
        tick,
        [(float(count), replace(size.usual, callers=count)) for count in size.callers[-2:]],
        (RANDOM, "least reported", "least reported, limit", *RIVALS),
    )


def slots(size: Size, tick: Tick) -> list[Row]:
    """Replicas that serve x calls at once, for a hundred callers."""
    setting = replace(size.many, replicas=size.replicas // 2)
    return _compared(
        "slots",
        size,
        tick,
        [(float(count), replace(setting, slots=count)) for count in (1, 4, 16)],
        (RANDOM, "peak EWMA", "least reported"),
    )


def refusals(size: Size, tick: Tick) -> list[Row]:
    """A round trip, which a refusal costs, takes x mean calls."""
    setting = size.many
    return _compared(
        "round trip",
        size,
        tick,
        [(trip, replace(setting, wire=trip / 2.0 * setting.mean)) for trip in (0.02, 0.3, 1.0)],
        (RANDOM, "peak EWMA", "peak EWMA, limit", "ask 2 first"),
    )


LIMITS: dict[str, Callable[[int], Limit | None]] = {
    "none": lambda _slots: None,
    "fixed, slots + 2": lambda slots: FixedLimit(slots + 2),
    "adaptive": lambda _slots: AdaptiveLimit(),
    "adaptive, tight": lambda _slots: AdaptiveLimit(initial=3, least=1, queue=1),
}


def limits_run(task: Task) -> Measured:
    """The second half of a run that is long enough for limits to settle, by peak EWMA."""
    slots = task.setting.slots
    setting = replace(task.setting, limit=LIMITS[task.contender](slots))
    world = World(setting, Habits(PeakEwma))
    seen = world.run()
    settled = [
        latency
        for latency, ended in zip(seen.latencies, seen.times, strict=True)
        if ended - latency > setting.seconds / 2.0
    ]
    return {
        "p99, mean calls": quantile(settled, 0.99) / setting.mean,
        "refusals per call": seen.refused / setting.calls,
    }


def limits(size: Size, tick: Tick) -> list[Row]:
    """Limits of replicas that serve x calls at once, for a hundred callers, over half a minute."""
    setting = replace(size.many, replicas=max(1, size.replicas // 5))
    tasks = [
        Task("limits", name, replace(setting, slots=slots, calls=size.calls * (1 + slots)), slots)
        for name in LIMITS
        for slots in (1, 4)
    ]
    return [
        row(task, metric, [each[metric] for each in found])
        for task, found in spread(limits_run, tasks, size.seeds, tick)
        for metric in found[0]
    ]


SOME = (
    RANDOM,
    "round robin",
    "least loaded",
    "peak EWMA",
    "least reported",
    "peak EWMA, limit",
    "least reported, limit",
)


def utilisation(size: Size, tick: Tick) -> list[Row]:
    """From a third of what the replicas can bear to nearly all of it, for a hundred callers."""
    return _compared(
        "utilisation",
        size,
        tick,
        [(each, replace(size.many, utilisation=each)) for each in size.utilisations],
    )


def service(size: Size, tick: Tick) -> list[Row]:
    """Other distributions of the work, by number: fixed, exponential, lognormal, Pareto."""
    kinds = ("fixed", "exponential", "lognormal", "pareto")
    return _compared(
        "service",
        size,
        tick,
        [
            (float(number), replace(size.usual, callers=10, service=kind))
            for number, kind in enumerate(kinds)
        ],
    )


def speeds(size: Size, tick: Tick) -> list[Row]:
    """A fifth of the replicas work at a third of the speed, for ten callers."""
    return _compared(
        "speeds",
        size,
        tick,
        [(share, replace(size.usual, callers=10, slow=share)) for share in (0.0, 0.2)],
    )


def _compared(
    experiment: str,
    size: Size,
    tick: Tick,
    settings: Sequence[tuple[float, Setting]],
    names: Sequence[str] = SOME,
) -> list[Row]:
    tasks = [Task(experiment, BOUND, replace(setting, callers=1), x) for x, setting in settings]
    bounds = {
        task.x: [each["p99"] for each in found]
        for task, found in spread(plain, tasks, size.seeds, tick)
    }
    tasks = [Task(experiment, name, setting, x) for name in names for x, setting in settings]
    return _against(spread(plain, tasks, size.seeds, tick), bounds)


def failing_run(task: Task) -> Measured:
    """A twentieth of the replicas fail all calls at once from a third of the run on."""
    habits = CONTENDERS[task.contender].habits
    if task.x == 0.0:
        habits = replace(habits, ejection=None)
    world = World(task.setting, habits)
    bad = list(world.servers.values())[: max(1, task.setting.replicas // 20)]
    hits = itertools.count()

    def fails() -> bool:
        next(hits)
        return True

    def fail() -> None:
        for server in bad:
            server.fails = fails

    began = task.setting.seconds / 3.0
    world.engine.after(began, fail)
    seen = world.run()
    attempts = task.setting.rate * (task.setting.seconds - began)
    return {
        "share of calls to failing replicas": next(hits) / attempts,
        "failed calls": float(seen.failed),
    }


def failing(size: Size, tick: Tick) -> list[Row]:
    """A twentieth fails: what share of calls it gets with ejection (x = 1) and without (0)."""
    tasks = [
        Task("failing", name, replace(size.usual, callers=10), x)
        for name in ("round robin", "least loaded", "peak EWMA", "least reported")
        for x in (0.0, 1.0)
    ]
    return [
        row(task, metric, [each[metric] for each in found])
        for task, found in spread(failing_run, tasks, size.seeds, tick)
        for metric in found[0]
    ]


# A new replica is cold for so many mean calls: ten seconds where calls take 0.1 s.
COLD = 100.0


def restarting_run(task: Task) -> Measured:
    """A quarter of the replicas is replaced by cold ones in the middle of the run, all at once."""
    habits = CONTENDERS[task.contender].habits
    if task.x == 0.0:
        habits = replace(habits, slow_start=None)
    world = World(task.setting, habits)

    def replace_quarter() -> None:
        world.deploy(task.setting.replicas // 4, world.engine.now + COLD * task.setting.mean)

    world.engine.after(task.setting.seconds / 2.0, replace_quarter)
    world.run()
    return {"p99": world.p99(), "failed calls": float(world.seen.failed)}


def restarts(size: Size, tick: Tick) -> list[Row]:
    """A quarter restarts and is cold, with slow start (x = 1) and without (x = 0)."""
    setting = replace(size.usual, callers=10, mean=0.1, wire=0.001, utilisation=0.6)
    tasks = [
        Task("restarts", name, setting, x)
        for name in (RANDOM, "round robin", "least loaded", "peak EWMA", "least reported")
        for x in (0.0, 1.0)
    ]
    return [
        row(task, "p99, mean calls", [each["p99"] / setting.mean for each in found])
        for task, found in spread(restarting_run, tasks, size.seeds, tick)
    ]


def subset_run(task: Task) -> Measured:
    """Connections and calls of each replica where callers know a part."""
    contender = CONTENDERS[task.contender]
    part = int(task.x)
    habits = replace(contender.habits, subset=Subset(size=part, above=part))
    world = World(replace(task.setting, limit=contender.limit), habits)
    known = Counter(
        node.replica.id for caller in world.callers for node in caller.balancer.snapshot.nodes
    )
    connections = [known[name] for name in world.servers]
    world.run()
    served = [server.served for server in world.servers.values()]
    mean = sum(served) / len(served)
    return {
        "p99": world.p99(),
        "fewest connections": float(min(connections)),
        "most connections": float(max(connections)),
        "busiest ÷ mean": max(served) / mean,
        "failed calls": float(world.seen.failed),
        "refusals per call": world.seen.refused / task.setting.calls,
    }


def subsets(size: Size, tick: Tick) -> list[Row]:
    """As many callers as replicas, each with a subset of x replicas."""
    setting = Setting(
        replicas=size.crowd, callers=size.crowd, calls=size.calls * 2, utilisation=0.8
    )
    first = size.seeds[:3]
    ((_, found),) = spread(
        plain, [Task("subsets", BOUND, replace(setting, callers=1), 0)], first, tick
    )
    bounds = {float(part): [each["p99"] for each in found] for part in size.subsets}
    tasks = [
        Task("subsets", name, setting, part)
        for name in ("peak EWMA", "peak EWMA, limit", "least reported, limit")
        for part in size.subsets
    ]
    results = spread(subset_run, tasks, first, tick)
    rows = _against(results, bounds)
    for task, measured in results:
        rows += [
            row(task, metric, [each[metric] for each in measured])
            for metric in ("fewest connections", "most connections", "busiest ÷ mean")
        ]
    return rows


EXPERIMENTS: dict[str, Callable[[Size, Tick], list[Row]]] = {
    "callers": callers,
    "candidates": candidates,
    "slots": slots,
    "round trip": refusals,
    "limits": limits,
    "utilisation": utilisation,
    "service": service,
    "speeds": speeds,
    "failing": failing,
    "restarts": restarts,
    "subsets": subsets,
    **{name: functools.partial(tuned, name) for name in KNOBS},
}
