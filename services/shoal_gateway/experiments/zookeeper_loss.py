"""ZooKeeper's leader dies, then all of it: calls and jobs go on, and everybody comes back.

The run is good when the checker finds nothing, no plain call failed, a caller that started during
the outage was served from the snapshot on the disk, one without a snapshot was told why not, and
every replica was registered again within `BOUND` seconds after the return.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from shoal_gateway.experiments import measures, workload, zkmeter
from shoal_gateway.experiments.breakages import Breaker
from shoal_gateway.experiments.faults import Fault, Injector
from shoal_gateway.experiments.lab import Lab, experiment, read_history
from shoal_gateway.experiments.plots import throughput
from shoal_gateway.experiments.prober import Prober
from shoal_gateway.experiments.settings import Settings
from shoal_gateway.experiments.zkmeter import Meter, Return
from shoal_gateway.experiments.zkplots import outage
from shoal_gateway.fleet import FleetError

SERVERS = 3
NAPS = (0.3, 0.7)
# Seconds that the leader and all are dead, in a full run and in a small one. The longer of the
# small ones is still longer than a replica's session.
LEADER_DEAD, SMALL_LEADER_DEAD = 5.0, 2.0
ALL_DEAD, SMALL_ALL_DEAD = 60.0, 12.0
# When they are killed, as shares of the arrivals' time.
LEADER_AT, ALL_AT = 0.15, 0.4
# Seconds until all must be registered again; where nothing is timed, until it is given up.
BOUND, GIVEN_UP = 15.0, 90.0
# The callers that start during the outage.
KNOWING, IGNORANT = "with a snapshot", "without a snapshot"
# The jobs have ended this many seconds after the last arrival, or the run has failed.
PATIENCE = 600.0


def run(settings: Settings) -> int:
    """Runs the experiment; its exit code."""
    hosts = 2 if settings.small else 3
    return experiment("zookeeper-loss", settings, _body, hosts=hosts, ensemble=SERVERS)


class Newcomers:
    """Callers that start during the outage: one with the fleet's snapshots, and one without.

    Args:
        lab: The run.

    Attributes:
        task: The job of the one that is served.
        told: By caller, what became of it.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        (self.task,) = workload.naps(1, lab.settings.seed, "newcomer", seconds=NAPS)
        self.told: dict[str, dict[str, Any]] = {KNOWING: {}, IGNORANT: {}}

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """They start now, and have told by the end.

        Raises:
            FleetError: one of them broke off.
        """
        task = self.task
        self._lab.history.note("submit", "newcomer", key=task.key, application=task.application,
                               parameters=dict(task.parameters))  # fmt: skip
        with ExitStack() as stack:
            empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-newcomer-"))
            known = str(self._lab.fleet.directory / "cache")
            started = []
            for name, cache in ((KNOWING, known), (IGNORANT, empty)):
                complaint = stack.enter_context(tempfile.TemporaryFile("w+"))
                process = subprocess.Popen(
                    [sys.executable, "-m", "shoal_gateway.experiments.newcomer",
                     self._lab.fleet.state.zookeeper, cache, task.key, task.parameters["seconds"]],
                    stdout=subprocess.PIPE,
                    stderr=complaint,
                    text=True,
                )  # fmt: skip
                stack.enter_context(process)
                # In case of an error; after it has ended this does nothing.
                stack.callback(process.kill)
                listener = threading.Thread(target=self._listen, args=[name, process], daemon=True)
                listener.start()
                started.append((name, process, listener, complaint))
            yield
            for name, process, listener, complaint in started:
                listener.join(60.0)
                if listener.is_alive() or process.wait():
                    complaint.seek(0)
                    said = complaint.read().strip()[-800:]
                    raise FleetError(f"the new caller {name} broke off: {said or 'no answer'}")

    def _listen(self, name: str, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            facts = json.loads(line)
            self.told[name] |= facts
            if "job_id" in facts:
                self._lab.history.note(
                    "acknowledged", "newcomer", key=self.task.key, job_id=facts["job_id"]
                )


def shortcomings(
    back: Return, failed: int, told: dict[str, dict[str, Any]], *, bound: float
) -> list[str]:
    """What was not as it must be; a sentence each.

    Args:
        back: How the replicas came back.
        failed: Plain calls without a good answer.
        told: By new caller, what became of it.
        bound: Seconds until all must be registered again.
    """
    problems = []
    if back.seconds is None:
        problems.append(f"not every replica was registered again within {GIVEN_UP:g} s")
    elif back.seconds > bound:
        problems.append(
            f"all were registered again {back.seconds:.1f} s after the return, "
            f"and not within {bound:g} s"
        )
    if failed:
        problems.append(f"{failed} plain calls failed")
    if told[KNOWING].get("job") != "SUCCEEDED":
        problems.append(f"the new caller {KNOWING}: {told[KNOWING]}")
    if told[IGNORANT].get("served") is not False:
        problems.append(
            f"a caller {IGNORANT} was served, so ZooKeeper was not dead: {told[IGNORANT]}"
        )
    return problems


def _body(lab: Lab) -> dict[str, Any]:
    settings, history = lab.settings, lab.history
    rng = random.Random(settings.seed)  # noqa: S311 - replayable, not secret
    tasks = workload.naps(settings.jobs, settings.seed, "zookeeper-loss", seconds=NAPS)
    breaker = Breaker(lab.fleet, lab.directory, rng)
    newcomers = Newcomers(lab)

    @contextmanager
    def all_killed() -> Iterator[str]:
        with breaker.zookeeper_killed() as what, newcomers.meanwhile():
            yield what

    small = settings.small
    injector = Injector(history, [
        Fault(LEADER_AT * settings.seconds, SMALL_LEADER_DEAD if small else LEADER_DEAD,
              breaker.leader_killed),
        Fault(ALL_AT * settings.seconds, SMALL_ALL_DEAD if small else ALL_DEAD, all_killed),
    ])  # fmt: skip
    client = lab.client()
    with Meter(lab.fleet.zookeepers()) as meter, Prober(lab.gateway.applications) as prober:
        running = len(lab.fleet.state.replicas)
        first = meter.wait(lambda sample: len(sample.registered) == running, GIVEN_UP)
        if first is None:
            raise FleetError(f"ZooKeeper never showed {running} connected replicas")
        client.start(tasks, workload.arrivals(settings.jobs, settings.seconds, rng))
        injector.start()
        try:
            lab.follow(client, settings.seconds + PATIENCE)
            injector.finish(PATIENCE)
        finally:
            injector.stop()
        meter.wait(lambda sample: first.registered <= sample.registered, GIVEN_UP)
    if job_id := newcomers.told[KNOWING].get("job_id"):
        client.acknowledged[newcomers.task.key] = job_id
    judged = lab.judge(client, [*tasks, newcomers.task])
    report = lab.report(injector.happened, judged)
    killed, until = (history.began + moment for moment in _dead(injector))
    back = zkmeter.returned(meter.samples, first.registered, killed)
    failed = [each for each in prober.probes if each.failure]
    short = shortcomings(back, len(failed), newcomers.told, bound=GIVEN_UP if small else BOUND)
    _draw(lab, injector, meter, prober)
    return {
        **report,
        "problems": [*report["problems"], *short],
        "good": report["good"] and not short,
        "registered": len(first.registered),
        "registered_again": asdict(back),
        "registered_again_bound_seconds": BOUND,
        "plain_calls": {
            "made": len(prober.probes),
            "failed": len(failed),
            "failures": sorted({each.failure for each in failed})[:10],
            "seconds_before": _latency(prober, 0.0, killed),
            "seconds_without_zookeeper": _latency(prober, killed, until),
        },
        "new_callers": newcomers.told,
    }


def _dead(injector: Injector) -> tuple[float, float]:
    last = injector.happened[-1]
    return last.at, last.until


def _latency(prober: Prober, begin: float, end: float) -> dict[str, float]:
    return measures.percentiles(
        each.seconds for each in prober.probes if begin <= each.at < end and not each.failure
    )


def _draw(lab: Lab, injector: Injector, meter: Meter, prober: Prober) -> None:
    settings, began = lab.settings, lab.history.began
    done: Sequence[float] = list(measures.successes(read_history(settings.out)).values())
    title = f"{settings.jobs} jobs, seed {settings.seed}: {SERVERS} ZooKeeper servers die"
    end = max([*done, *(each.until for each in injector.happened)])
    throughput(settings.out / "throughput.png", {"per second": done}, injector.happened, end, title)
    outage(
        settings.out / "zookeeper.png",
        meter.samples,
        prober.probes,
        injector.happened,
        began,
        title,
    )
