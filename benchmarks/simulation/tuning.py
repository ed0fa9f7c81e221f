"""The defaults that nobody had measured: what each of them buys and costs, value by value."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.simulation.callers import Habits
from benchmarks.simulation.runs import Measured, Row, Task, Tick, row, spread
from benchmarks.simulation.service import quantile
from benchmarks.simulation.size import Size
from benchmarks.simulation.world import Setting, World
from shoal_balancer import Ejection, LeastLoaded, PeakEwma, SlowStart, load

# Thirty replicas and ten callers, calls of 0.1 s: each caller meets each replica 0.7 times a
# second, and a run lasts minutes, which is what time constants of seconds need.
USUAL = Setting(replicas=30, callers=10, utilisation=0.7, mean=0.1, wire=0.001)
# Replicas that something happens to.
SICK = 2
# What a replica's speed falls to in a brownout.
BROWNOUT = 0.2
# Seconds for which a new replica is cold.
COLD = {"cold for 10 s": 10.0, "cold for 30 s": 30.0, "warm": 0.0}
# Seconds after a restart in which calls count.
AFTERMATH = 30.0


def _in_means(world: World) -> float:
    return world.p99() / world.setting.mean


class Trouble:
    """Replicas that fail some calls at once, in a world.

    Args:
        world: The world.
        share: Of the calls that a sick replica fails.
        background: Of the calls that every other replica fails.
    """

    def __init__(self, world: World, share: float, background: float = 0.0) -> None:
        self._world = world
        self._rng = random.Random(world.setting.seed)  # noqa: S311 - no secret
        self._hits = 0
        self._ejected: list[float] = []
        servers = list(world.servers.values())
        self._sick = set(list(world.servers)[:SICK])
        for server in servers[:SICK]:
            server.fails = self._failing(share, sick=True)
        for server in servers[SICK:]:
            server.fails = self._failing(background, sick=False)
        self._look()

    def _failing(self, share: float, *, sick: bool) -> Callable[[], bool]:
        def fails() -> bool:
            self._hits += sick
            return self._rng.random() < share

        return fails

    def _look(self) -> None:
        """How many of the well replicas are ejected, once a second."""
        world = self._world
        ejected = [
            node.health.ejected
            for caller in world.callers
            for node in caller.balancer.snapshot.nodes
            if node.replica.id not in self._sick
        ]
        self._ejected.append(statistics.fmean(ejected))
        if world.engine.now < world.setting.seconds:
            world.engine.after(1.0, self._look)

    def measured(self) -> Measured:
        """What sick replicas got of what an even split would give them, and who was wronged."""
        fair = self._world.seen.attempts * SICK / self._world.setting.replicas
        return {
            "sick: share ÷ even share": self._hits / fair,
            "well but ejected, %": 100.0 * statistics.fmean(self._ejected),
            "failed calls, %": 100.0 * self._world.seen.failed / self._world.setting.calls,
        }


def tau_run(task: Task) -> Measured:
    """Peak EWMA with tau of x mean calls; 0 is least loaded, which looks at no latency."""
    setting = task.setting
    if task.contender == "a fifth is slow":
        setting = replace(setting, slow=0.2)
    tau = task.x * setting.mean
    world = World(setting, Habits(lambda: PeakEwma(tau) if tau else LeastLoaded()))
    if task.contender == "brownout":
        slow = list(world.servers.values())[:SICK]

        def speed(value: float) -> None:
            for server in slow:
                server.speed = value

        world.engine.after(setting.seconds / 3.0, speed, BROWNOUT)
        world.engine.after(setting.seconds / 1.5, speed, 1.0)
    world.run()
    return {"p99, mean calls": _in_means(world)}


def penalty_run(task: Task) -> Measured:
    """A failed call counts as x times the usual latency; ejection is off, or would hide it."""
    load.FAILURE_PENALTY = task.x  # in a process of the run's own, and set by each run
    world = World(task.setting, Habits(PeakEwma, ejection=None))
    if task.contender == "all fail 1 %":
        trouble = Trouble(world, 0.01, 0.01)
    else:
        trouble = Trouble(world, 0.3 if task.contender == "two fail 30 %" else 1.0)
    world.run()
    return {
        "p99, mean calls": _in_means(world),
        "sick: share ÷ even share": trouble.measured()["sick: share ÷ even share"],
    }


def _restarted(task: Task, rule: SlowStart | None) -> Measured:
    """A quarter is replaced at once; only calls of the next 30 s count."""
    world = World(task.setting, Habits(PeakEwma, slow_start=rule))
    half = task.setting.seconds / 2.0
    cold = COLD[task.contender]
    world.engine.after(
        half, lambda: world.deploy(task.setting.replicas // 4, world.engine.now + cold)
    )
    seen = world.run()
    after = [
        latency
        for latency, ended in zip(seen.latencies, seen.times, strict=True)
        if half <= ended - latency < half + AFTERMATH
    ]
    return {"p99 of the next 30 s, mean calls": quantile(after, 0.99) / task.setting.mean}


def warmup_run(task: Task) -> Measured:
    """Slow start over x seconds; 0 for none."""
    return _restarted(task, SlowStart(window=task.x) if task.x else None)


def floor_run(task: Task) -> Measured:
    """Slow start over 10 s from a share of x."""
    return _restarted(task, SlowStart(window=10.0, floor=task.x))


def volume_run(task: Task) -> Measured:
    """A success rate counts from x calls on; two replicas fail half, all others 5 or 10 %."""
    rule = Ejection(volume=int(task.x))
    world = World(task.setting, Habits(PeakEwma, ejection=rule))
    trouble = Trouble(world, 0.5, 0.1 if task.contender == "others fail 10 %" else 0.05)
    world.run()
    return trouble.measured()


@dataclass(frozen=True, slots=True)
class Knob:
    """A default and what is tried for it.

    Attributes:
        run: Measures one value.
        scenes: What it is measured in.
        values: The values.
        setting: The world.
    """

    run: Callable[[Task], Measured]
    scenes: tuple[str, ...]
    values: tuple[float, ...]
    setting: Setting = USUAL


KNOBS: dict[str, Knob] = {
    "tau": Knob(
        tau_run, ("steady", "brownout", "a fifth is slow"), (0.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    ),
    "penalty": Knob(
        penalty_run, ("two fail 30 %", "two fail all", "all fail 1 %"), (1.0, 2.0, 5.0, 20.0)
    ),
    "slow start": Knob(
        warmup_run, ("cold for 10 s", "cold for 30 s", "warm"), (0.0, 3.0, 10.0, 30.0, 60.0)
    ),
    "floor": Knob(floor_run, ("cold for 10 s", "warm"), (0.01, 0.1, 0.3, 1.0)),
    "volume": Knob(
        volume_run, ("others fail 5 %", "others fail 10 %"), (5.0, 10.0, 15.0, 20.0, 50.0)
    ),
}


def tuned(name: str, size: Size, tick: Tick) -> list[Row]:
    """Tries the values of a knob."""
    knob = KNOBS[name]
    setting = replace(knob.setting, calls=size.calls)
    tasks = [Task(name, scene, setting, value) for scene in knob.scenes for value in knob.values]
    return [
        row(task, metric, [each[metric] for each in found])
        for task, found in spread(knob.run, tasks, size.seeds, tick)
        for metric in found[0]
    ]
