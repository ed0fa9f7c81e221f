"""Ways to break a fleet; each is made whole again when its context ends."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from shoal_gateway.fleet import Fleet, processes


class Breaker:
    """Breaks things of a fleet.

    Args:
        fleet: Whose.
        rng: Chooses victims.

    Attributes:
        replicas: Ids of replicas that were killed.
        hosts: Hosts that were lost.
    """

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self._fleet = fleet
        self._rng = rng
        self.replicas: list[str] = []
        self.hosts: list[str] = []

    @contextmanager
    def killed(self, service: str) -> Iterator[str]:
        """SIGKILL to a replica of a service, and a new start."""
        victim = self._any(service)
        self.replicas += self._fleet.kill(victim)
        try:
            yield f"{victim} killed"
        finally:
            self._fleet.start(victim)

    @contextmanager
    def paused(self, service: str) -> Iterator[str]:
        """SIGSTOP to a replica of a service, and SIGCONT."""
        victim = self._any(service)
        process = self._fleet.state.replicas[victim].process
        if process is None or not processes.send(process, signal.SIGSTOP):
            raise RuntimeError(f"{victim} ended before it could be paused")
        try:
            yield f"{victim} paused"
        finally:
            processes.send(process, signal.SIGCONT)

    @contextmanager
    def lost(self) -> Iterator[str]:
        """A whole host: everything on it at once, and its directory; then it comes back bare."""
        victim = self._rng.choice(sorted(self._fleet.state.hosts))
        self._fleet.kill(victim)
        self.hosts.append(victim)
        try:
            yield f"{victim} lost"
        finally:
            self._fleet.start(victim)

    def _any(self, service: str) -> str:
        replicas = self._fleet.state.replicas.values()
        names = sorted(each.id for each in replicas if each.service == service)
        return self._rng.choice(names)
