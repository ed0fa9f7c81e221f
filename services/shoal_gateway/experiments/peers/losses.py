"""What each side loses when a process of it is killed in the middle of its work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from shoal_gateway.client import state_name
from shoal_gateway.experiments.peers import tasks
from shoal_gateway.experiments.peers.celery_side import CelerySide
from shoal_gateway.experiments.peers.shoal_side import HOST, MANAGER, ShoalSide
from shoal_gateway.experiments.peers.sides import children

# Seconds that each job waits, so that some run when the blow falls.
NAP = 0.05
# Seconds until what has not come back is called lost. A Celery worker looks for what others have
# left behind when it starts and then every hundred seconds (kombu's Redis transport: a sweep every
# ten seconds, of which each tenth looks); so long it gets to give out again what was taken.
PATIENCE = 40.0
SWEEPS = 130.0

# What is killed, in whose words it comes closest on both sides.
KILLED = ("worker", "manager", "store", "host")
# The kind that Shoal needs a second host for: one can't outlive itself.
OF_TWO = "host"
WORDS = {
    ("Shoal", "worker"): "a warm worker",
    ("Shoal", "manager"): "an app manager",
    ("Shoal", "store"): "a registry",
    ("Shoal", "host"): "a host: one replica of each service, its workers, its directory",
    ("Celery", "worker"): "a pool process",
    ("Celery", "manager"): "the worker's main process and its pool",
    ("Celery", "store"): "Redis",
    ("Celery", "host"): "everything: Redis, the worker, its pool",
}


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of acknowledged jobs when something was killed.

    Attributes:
        side: Whose.
        killed: What.
        acknowledged: Jobs that were accepted.
        succeeded: Those that succeeded in the end.
        failed: Those that ended otherwise.
        lost: Those without an end when patience was at its own.
        seconds: From the first submit to the last end that was seen.
    """

    side: str
    killed: str
    acknowledged: int
    succeeded: int
    failed: int
    lost: int
    seconds: float

    def record(self) -> dict[str, Any]:
        """For the report."""
        return {**asdict(self), "what": WORDS[self.side, self.killed]}


def of_shoal(side: ShoalSide, killed: str, jobs: int) -> Loss:
    """Kills a "worker", the "manager", the "store" (with SQLite, a registry) or a whole "host"."""
    name = {"worker": "", "manager": MANAGER, "store": "registry-1", "host": HOST}[killed]
    began = time.monotonic()
    ids, first = side.submit(jobs, application="wait", parameters={"seconds": str(NAP)})
    seen: dict[str, int] = {}
    quarter, done = threading.Event(), threading.Event()

    def follow() -> None:
        for job_id, state in side.ends(ids, first):
            seen[job_id] = state
            if len(seen) >= jobs // 4:
                quarter.set()
        done.set()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    if not quarter.wait(PATIENCE):
        raise TimeoutError(f"{len(seen)} of {jobs} jobs had ended after {PATIENCE:g} s")
    if name:
        side.fleet.kill(name)
        side.fleet.start(name)
    else:
        os.kill(children(side.pid(MANAGER))[0], signal.SIGKILL)
    done.wait(PATIENCE)
    took = time.monotonic() - began
    states = dict(seen)
    for each in ids - states.keys():
        # Its event may be what the follower missed; the record counts.
        states[each] = side.gateway.get(each).job.state
    counts = Counter(state_name(state) for state in states.values())
    ended = sum(counts[name] for name in ("SUCCEEDED", "FAILED", "CANCELLED", "DEAD"))
    good = counts["SUCCEEDED"]
    return Loss("Shoal", killed, jobs, good, ended - good, jobs - ended, took)


def of_celery(side: CelerySide, killed: str, jobs: int) -> Loss:
    """Kills a "worker" process, the "manager" of them, the "store" (Redis), or all ("host")."""
    began = time.monotonic()
    ids = side.submit(tasks.WAIT, jobs, NAP)
    if side.unended(ids[: jobs // 4], PATIENCE):
        raise TimeoutError(f"a quarter of {jobs} tasks had not ended after {PATIENCE:g} s")
    if killed == "worker":
        os.kill(children(side.worker.pid)[0], signal.SIGKILL)
    if killed in ("manager", "host"):
        for pid in (side.worker.pid, *children(side.worker.pid)):
            os.kill(pid, signal.SIGKILL)
        side.worker.wait()
    if killed in ("store", "host"):
        side.broker.kill()
        side.broker.wait()
        side.start_broker()
    if killed in ("manager", "host"):
        side.start_worker()
    left = side.unended(ids, SWEEPS)
    took = time.monotonic() - began
    failed = side.failed(ids)
    good = jobs - len(left) - failed
    side.forget(ids)
    return Loss("Celery", killed, jobs, good, failed, len(left), took)
