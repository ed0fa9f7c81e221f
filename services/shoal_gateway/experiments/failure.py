"""Jobs go on while replicas of every service, a host and the store die.

The faults come at random times between 10 and 90 % of the arrivals. The run is good when every
acknowledged job has succeeded exactly once, and when the faults hit: jobs were started again, and
calls were sent elsewhere.
"""

from __future__ import annotations

import random
from typing import Any

from shoal_gateway.experiments import measures, workload
from shoal_gateway.experiments.breakages import Breaker
from shoal_gateway.experiments.faults import Breakage, Fault, Injector, spread
from shoal_gateway.experiments.lab import Lab, experiment, read_history
from shoal_gateway.experiments.plots import throughput
from shoal_gateway.experiments.settings import Settings
from shoal_gateway.fleet.layout import SERVICES

# Kills of each service, and seconds that things stay broken: in a full run and in a small one.
KILLS, SMALL_KILLS = 5, 1
PAUSE, SMALL_PAUSE = 15.0, 4.0
REPLICA_DEAD, HOST_DEAD, STORE_DEAD = 2.0, 8.0, 3.0
# The jobs have ended this many seconds after the last arrival, or the run has failed.
PATIENCE = 1800.0


def run(settings: Settings) -> int:
    """Runs the experiment; its exit code."""
    return experiment("failure", settings, _body)


def schedule(settings: Settings, breaker: Breaker, rng: random.Random) -> list[Fault]:
    """What is broken when."""
    kills = SMALL_KILLS if settings.small else KILLS

    def kill(service: str) -> Breakage:
        return lambda: breaker.killed(service)

    wanted: list[tuple[Breakage, float]] = [
        (kill(service), REPLICA_DEAD) for service in SERVICES for _ in range(kills)
    ]
    pause = SMALL_PAUSE if settings.small else PAUSE
    wanted.append((lambda: breaker.paused(rng.choice(SERVICES)), pause))
    wanted.append((breaker.lost, HOST_DEAD))
    if settings.store == "postgres":
        wanted.append((breaker.store_killed, STORE_DEAD))
    rng.shuffle(wanted)
    times = spread(rng, len(wanted), settings.seconds)
    return [
        Fault(at, seconds, breakage) for at, (breakage, seconds) in zip(times, wanted, strict=True)
    ]


def _body(lab: Lab) -> dict[str, Any]:
    settings = lab.settings
    rng = random.Random(settings.seed)  # noqa: S311 - replayable, not secret
    tasks = workload.climate(settings.jobs, settings.seed, "failure")
    breaker = Breaker(lab.fleet, lab.directory, random.Random(settings.seed + 1))  # noqa: S311
    injector = Injector(lab.history, schedule(settings, breaker, rng))
    client = lab.client()
    client.start(tasks, workload.arrivals(settings.jobs, settings.seconds, rng))
    injector.start()
    try:
        lab.follow(client, settings.seconds + PATIENCE)
        injector.finish(120.0)
    finally:
        injector.stop()
    judged = lab.judge(client, tasks)
    report = lab.report(injector.happened, judged)
    done = list(measures.successes(read_history(settings.out)).values())
    killed, hosts = len(breaker.replicas), len(breaker.hosts)
    throughput(
        settings.out / "throughput.png",
        {"per second": done},
        injector.happened,
        max([*done, *(each.until for each in injector.happened)]),
        f"{settings.jobs} jobs on {settings.store}, seed {settings.seed}: {killed} replicas "
        f"killed, one paused, {hosts} host lost",
    )
    hit = report["attempts_lost"] >= 1 and report["retries"] >= 1
    if not hit:
        report["problems"].append(
            f"attempts lost: {report['attempts_lost']}, retries: {report['retries']}; both must be "
            "at least 1, else the faults hit nothing and the run has shown nothing"
        )
    return {
        **report,
        "good": report["good"] and hit,
        "replicas_killed": killed,
        "hosts_killed": hosts,
        "events_killed": [*breaker.replicas, *breaker.hosts],
    }
