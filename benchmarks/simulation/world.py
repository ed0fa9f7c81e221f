"""A world: replicas, callers and the calls that come whether or not the last ones were answered."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.simulation.callers import Caller, Habits, Seen
from benchmarks.simulation.engine import Engine
from benchmarks.simulation.servers import Server
from benchmarks.simulation.service import SERVICES, quantile
from shoal_balancer import Replica
from shoal_balancer.limit import Limit


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated.

    Attributes:
        replicas: How many.
        callers: How many; each knows only its own calls.
        utilisation: Work that comes ÷ work that all replicas could do.
        calls: How many, the first tenth of which is not counted.
        mean: Seconds of a mean call.
        wire: Seconds to a replica and the same back; a fiftieth of a mean call together.
        service: Distribution of the work, a key of `SERVICES`.
        slots: Calls at once at each replica.
        slow: Share of the replicas that work at a third of the usual speed.
        limit: Of each replica.
        seed: Of everything random.
    """

    replicas: int = 100
    callers: int = 100
    utilisation: float = 0.8
    calls: int = 60_000
    mean: float = 0.01
    wire: float = 0.0001
    service: str = "lognormal"
    slots: int = 1
    slow: float = 0.0
    limit: Limit | None = None
    seed: int = 1

    def speed(self, number: int) -> float:
        """Of a replica, by its number; 1 is usual."""
        return 1.0 / 3.0 if number < self.slow * self.replicas else 1.0

    @property
    def rate(self) -> float:
        """Calls per second, of all callers together."""
        power = sum(self.speed(number) for number in range(self.replicas)) * self.slots
        return self.utilisation * power / self.mean

    @property
    def seconds(self) -> float:
        """How long the calls come."""
        return self.calls / self.rate


class World:
    """Replicas and callers, and what happens to them.

    Args:
        setting: What is simulated.
        habits: How callers balance.
        caller: Makes a caller.
    """

    def __init__(self, setting: Setting, habits: Habits, caller: type[Caller] = Caller) -> None:
        self.setting = setting
        self.engine = Engine()
        self.seen = Seen()
        self.servers = {
            f"r{number:04}": Server(
                self.engine,
                slots=setting.slots,
                speed=setting.speed(number),
                limit=setting.limit,
            )
            for number in range(setting.replicas)
        }
        self.replicas = [Replica(name, "10.0.0.1", 1) for name in self.servers]
        self.callers = [
            caller(
                self.engine,
                habits,
                self.servers,
                name=f"caller-{number}",
                seed=setting.seed * 1_000_003 + number,
                wire=setting.wire,
                seen=self.seen,
            )
            for number in range(setting.callers)
        ]
        # Which replicas answer, how long calls take and when they come are each drawn from a source
        # of their own, so that all policies meet the same calls at the same times.
        self._arrivals = random.Random(setting.seed)  # noqa: S311 - no secret
        self._works = random.Random(setting.seed + 1)  # noqa: S311 - no secret
        self._draw = SERVICES[setting.service]
        self._rate = setting.rate
        self.announce()

    def announce(self) -> None:
        """All callers hear of the set as it is."""
        for caller in self.callers:
            caller.observe(self.replicas)

    def deploy(self, count: int, cold_until: float) -> None:
        """Puts new replicas, cold until a time, in the place of the first ``count`` old ones."""
        setting = self.setting
        fresh = [f"{replica.id}-new" for replica in self.replicas[:count]]
        for name in fresh:
            server = Server(self.engine, slots=setting.slots, limit=setting.limit)
            server.cold_until = cold_until
            self.servers[name] = server
        self.replicas = self.replicas[count:] + [Replica(name, "10.0.0.1", 1) for name in fresh]
        self.announce()

    def run(self) -> Seen:
        """Lets the calls come, and waits for the last."""
        self._arrive()
        self.engine.run(self.setting.seconds)
        self._rate = 0.0
        # A replica that fell far behind still has to answer.
        self.engine.run(self.setting.seconds * 3.0)
        return self.seen

    def counted(self) -> list[float]:
        """Latencies after the first tenth, seconds."""
        began = self.setting.seconds / 10.0
        seen = self.seen
        return [
            latency
            for latency, ended in zip(seen.latencies, seen.times, strict=True)
            if ended - latency >= began
        ]

    def p99(self) -> float:
        """The 99th percentile of what was counted, seconds."""
        return quantile(self.counted(), 0.99)

    def _arrive(self) -> None:
        if not self._rate:
            return
        rng = self._arrivals
        caller = self.callers[int(rng.random() * len(self.callers))]
        caller.call(self._draw(self._works) * self.setting.mean)
        self.engine.after(rng.expovariate(self._rate), self._arrive)
