"""What is killed when: a seeded plan, tied to how far the jobs are."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from shoal.directory import Directory
from shoal_gateway.demo.plot import Mark
from shoal_gateway.experiments.breakages import interrupted, jobs_running
from shoal_gateway.fleet import Fleet

logger = logging.getLogger(__name__)

# Seconds that something stays dead; a host longer, so that its leases run out meanwhile.
REPLICA_DEAD = 2.0
HOST_DEAD = 8.0
# No further host is lost when this share of the jobs has ended.
LAST = 0.85
# How long a victim with a running job is looked for.
LOOK = 20.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to come.

    Attributes:
        after: Share of the jobs that has ended by then, 0 to 1.
        kind: A service, whose replica is killed, or "host".
    """

    after: float
    kind: str


def plan(rng: random.Random) -> list[Fault]:
    """One replica of each service and one host, in random order, between 12 % and 75 %."""
    kinds = ["registry", "api", "scheduler", "appmanager", "host"]
    rng.shuffle(kinds)
    width = (0.75 - 0.12) / len(kinds)
    return [
        Fault(0.12 + width * (number + rng.uniform(0.0, 0.6)), kind)
        for number, kind in enumerate(kinds)
    ]


class Injector:
    """Carries the plan out on a thread of its own.

    Args:
        fleet: Whom it happens to.
        directory: To ask app managers what they run.
        faults: The plan.
        progress: Share of the jobs that has ended.
        began: Start of the run, monotonic seconds.
        rng: Chooses victims.
    """

    def __init__(
        self,
        fleet: Fleet,
        directory: Directory,
        faults: list[Fault],
        progress: Callable[[], float],
        *,
        began: float,
        rng: random.Random,
    ) -> None:
        self._fleet = fleet
        self._directory = directory
        self._faults = faults
        self._progress = progress
        self._began = began
        self._rng = rng
        self._moved = threading.Event()
        self._stopped = False
        self.marks: list[Mark] = []
        self.replicas_killed: list[str] = []
        self.hosts_killed: list[str] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)

    def start(self) -> None:
        """Begins to wait for the first fault's moment."""
        self._thread.start()

    def moved(self) -> None:
        """A job has ended."""
        self._moved.set()

    def finish(self, timeout: float) -> None:
        """Waits for the faults to be over, everything brought back."""
        self._thread.join(timeout)

    def stop(self) -> None:
        """No further fault."""
        self._stopped = True
        self._moved.set()
        self._thread.join(30.0)

    def _run(self) -> None:
        try:
            for fault in self._faults:
                self._await(fault.after)
                if self._stopped:
                    return
                self._inject(fault.kind)
                # A host may just have finished what it had; then the next one is to be hit.
                while (
                    fault.kind == "host"
                    and not interrupted(self._fleet.layout)
                    and self._progress() < LAST
                ):
                    self._inject(fault.kind)
        except Exception as error:
            # Told by the run, which ends for it; here nobody would hear.
            logger.exception("fault injection failed")
            self.error = error

    def _inject(self, kind: str) -> None:
        victim = self._victim(kind)
        killed = self._fleet.kill(victim)
        self._mark(f"{victim} killed", fault=True)
        if kind == "host":
            self.hosts_killed.append(victim)
            # One that had just finished what it had shows nothing: on to the next while there are
            # jobs left to hit.
            self._pause(HOST_DEAD if interrupted(self._fleet.layout) else REPLICA_DEAD)
        else:
            self.replicas_killed += killed
            self._pause(REPLICA_DEAD)
        self._fleet.start(victim)
        self._mark(f"{victim} back", fault=False)

    def _victim(self, kind: str) -> str:
        replicas = self._fleet.state.replicas
        names = sorted(each.id for each in replicas.values() if each.service == kind)
        if kind not in ("host", "appmanager"):
            return self._rng.choice(names)
        busy = self._busy()
        if kind == "appmanager":
            return self._rng.choice(busy or names)
        hosts = sorted({replicas[name].host for name in busy} or self._fleet.state.hosts)
        return self._rng.choice(hosts)

    def _busy(self) -> list[str]:
        """App managers that hold a running job right now; looked for until there is one."""
        until = time.monotonic() + LOOK
        while time.monotonic() < until and not self._stopped:
            found = sorted(
                replica.id
                for replica in self._directory.watch("appmanager").replicas()
                if self._fleet.running(replica.id) and jobs_running(replica.target)
            )
            if found:
                return found
            self._pause(0.1)
        return []

    def _mark(self, label: str, *, fault: bool) -> None:
        at = time.monotonic() - self._began
        logger.info("%s at %.1f s", label, at)
        self.marks.append(Mark(at, label, fault))

    def _await(self, share: float) -> None:
        while not self._stopped and self._progress() < share:
            self._moved.wait(1.0)
            self._moved.clear()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopped and (rest := until - time.monotonic()) > 0.0:
            self._moved.wait(min(rest, 0.5))
            self._moved.clear()
