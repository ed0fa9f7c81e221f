"""`shoal experiment ensemble`: the tables, then the time series beside the gateway's jobs."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

from shoal.errors import ShoalError
from shoal.testing.installed import ZooKeeperError
from shoal_gateway.experiments import measures, workload
from shoal_gateway.experiments.breakages import Breaker
from shoal_gateway.experiments.ensemble import plots, rounds, series, tables
from shoal_gateway.experiments.ensemble.load import Counted, prepare
from shoal_gateway.experiments.ensemble.press import Press
from shoal_gateway.experiments.faults import Injector
from shoal_gateway.experiments.lab import Lab, console, experiment, progress_bar, read_history
from shoal_gateway.experiments.settings import Settings
from shoal_gateway.fleet import FleetError

SERVERS, SMALL_SERVERS = 5, 3
NAPS = (0.3, 0.7)
# While there is no ZooKeeper at all, jobs are done at this share of the rate that they are offered
# at, or they have noticed.
FLAT = 0.7
# The jobs have ended this many seconds after the last arrival, or the run has failed.
PATIENCE = 600.0


def run(settings: Settings) -> int:
    """Runs the experiment; its exit code."""
    size = tables.SMALL if settings.small else tables.Size()
    try:
        with tables.ensembles(size.servers) as found, progress_bar() as bar:
            task = bar.add_task("steps of load", total=size.steps)
            rows = tables.measure(
                found, size, settings.seed,
                lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
            task = bar.add_task("steps of barriers", total=None)
            rows["barriers"] = rounds.measure(
                found[max(size.servers)], size.clients, size.barriers, size.rounds,
                lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
    except (ZooKeeperError, FleetError, ShoalError, OSError) as error:
        console.print(f"the tables failed: {error}", style="red", markup=False)
        return 1
    servers = SMALL_SERVERS if settings.small else SERVERS
    hosts = 1 if settings.small else 3
    return experiment("ensemble", settings, partial(_body, rows), hosts=hosts, ensemble=servers)


def _body(rows: dict[str, Any], lab: Lab) -> dict[str, Any]:
    settings = lab.settings
    rng = random.Random(settings.seed)  # noqa: S311 - replayable, not secret
    tasks = workload.naps(settings.jobs, settings.seed, "ensemble", seconds=NAPS)
    servers = lab.fleet.zookeepers()
    members = series.Members(servers, Breaker(lab.fleet, lab.directory, rng), rng)
    moments = series.SMALL if settings.small else series.FULL
    injector = Injector(lab.history, members.schedule(moments, settings.seconds))
    client = lab.client()
    prepare((servers[0].address, servers[0].port))
    press = Press(
        servers, seconds=settings.seconds, reads=series.READS, sessions=series.SESSIONS,
        window=series.WINDOW, rate=series.RATE, seed=settings.seed,
    )  # fmt: skip
    try:
        client.start(tasks, workload.arrivals(settings.jobs, settings.seconds, rng))
        injector.start()
        lab.follow(client, settings.seconds + PATIENCE)
        injector.finish(PATIENCE)
        counted = press.wait()
    finally:
        injector.stop()
        press.stop()
    judged = lab.judge(client, tasks)
    report = lab.report(injector.happened, judged)
    jobs = list(measures.successes(read_history(settings.out)).values())
    felt = series.felt(counted, jobs, injector.happened, lab.history.began)
    # A few jobs in a few seconds have no rate to speak of.
    offered = 0.0 if settings.small else settings.jobs / settings.seconds
    short = shortcomings(felt[-1], offered)
    _draw(lab, injector, counted, jobs, rows)
    return {
        **report,
        "problems": [*report["problems"], *short],
        "good": report["good"] and not short,
        "tables": rows,
        "load": {
            "reads": series.READS,
            "offered_per_second": series.SESSIONS * series.RATE,
            "lost_operations": counted.lost,
        },
        "series": felt,
    }


def shortcomings(outage: dict[str, Any], offered: float) -> list[str]:
    """What was not as it must be while all servers were dead; a sentence each.

    Args:
        outage: The last event, as `series.felt` tells it.
        offered: Jobs a second.
    """
    problems = []
    if outage["no_answer_seconds"] < 0.9 * outage["seconds"]:
        problems.append(
            f"ZooKeeper answered {outage['no_answer_seconds']} s after it was killed for "
            f"{outage['seconds']} s: the outage was none"
        )
    done = outage["jobs_per_second_meanwhile"]
    if done < FLAT * offered:
        problems.append(
            f"without ZooKeeper {done:.2f} jobs succeeded a second, which is not {FLAT:.0%} of "
            f"{offered:.2f}, as many as were offered"
        )
    return problems


def _draw(
    lab: Lab, injector: Injector, counted: Counted, jobs: list[float], rows: dict[str, Any]
) -> None:
    out, settings = lab.settings.out, lab.settings
    plots.tables(out / "tables.png", rows)
    plots.failures(
        out / "series.png",
        counted,
        jobs,
        injector.happened,
        lab.history.began,
        f"{len(lab.fleet.zookeepers())} servers, {1 - series.READS:.0%} writes; "
        f"{settings.jobs} jobs, seed {settings.seed}",
    )
