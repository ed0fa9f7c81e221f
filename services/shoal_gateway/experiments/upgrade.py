"""Every service is rolled to a second version while jobs arrive; none may fail.

Before that, a version that breaks on the second host is tried: it must be rolled back. The run is
good when the checker finds nothing, when the broken version left no trace, when every replica runs
the second version in the end, and when both versions have run jobs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shoal_gateway.experiments import measures, workload
from shoal_gateway.experiments.faults import Breakage, Fault, Injector
from shoal_gateway.experiments.lab import Lab, experiment, read_history
from shoal_gateway.experiments.plots import throughput
from shoal_gateway.experiments.settings import Settings
from shoal_gateway.fleet import Fleet, FleetError
from shoal_gateway.fleet.gate import Patience
from shoal_gateway.fleet.rollout import Outcome, Plan
from shoal_gateway.fleet.upgrade import Result, Upgrade, Wish
from shoal_gateway.fleet.upgradelock import held

# The second version, and one that ends at once on the second host: the first replica has been
# replaced by then, and must be brought back.
SECOND, BROKEN = "second", "broken"
MAIN = 'if __name__ == "__main__":\n'
BREAK = f'{MAIN}    if "host-2" in sys.argv:\n        raise RuntimeError("a broken release")\n'
# Jobs wait for so long, seconds: two cores must have time for the upgrades.
NAPS = (0.3, 0.7)
# The jobs have ended this many seconds after the last arrival, or the run has failed.
PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Roll:
    """An upgrade within the run.

    Attributes:
        at: When it begins, as a share of the arrivals' time.
        service: Of what.
        version: To what.
        surge: Whether new replicas come before old ones go.
        unavailable: Replicas at once.
        canary: Replicas that are watched first.
    """

    at: float
    service: str
    version: str = SECOND
    surge: bool = True
    unavailable: int = 1
    canary: int = 0

    @property
    def wanted(self) -> Outcome:
        """How it must end."""
        return Outcome.ROLLED_BACK if self.version == BROKEN else Outcome.DONE

    def __str__(self) -> str:
        how = "surge" if self.surge else "in place"
        if self.canary:
            how += f", {self.canary} first"
        return f"{self.service} to {self.version} ({how})"


FULL = (
    Roll(0.08, "registry", BROKEN),
    Roll(0.16, "registry"),
    Roll(0.32, "api"),
    Roll(0.46, "scheduler"),
    Roll(0.60, "appmanager", surge=False, canary=1),
)
# What runs jobs comes first, so that however slow the machine, jobs are left for the new ones.
SMALL = (
    Roll(0.12, "appmanager", surge=False, unavailable=2),
    Roll(0.45, "api", BROKEN),
    Roll(0.75, "api"),
)


def run(settings: Settings) -> int:
    """Runs the experiment; its exit code."""
    return experiment("upgrade", settings, _body, hosts=2 if settings.small else 3)


@dataclass(slots=True)
class Roller:
    """Carries upgrades out, and keeps what came of them.

    Attributes:
        lab: The run.
        results: In order, each with what was asked.
    """

    lab: Lab
    results: list[tuple[Roll, Result]] = field(default_factory=list)

    def breakage(self, roll: Roll) -> Breakage:
        """An upgrade as something that begins and is over."""

        @contextmanager
        def rolling() -> Iterator[str]:
            yield str(roll)
            self.carry_out(roll)

        return rolling

    def carry_out(self, roll: Roll) -> None:
        """Upgrades, and writes each step down.

        Raises:
            FleetError: another upgrade runs, or a replica could not be started.
        """
        lab, small = self.lab, self.lab.settings.small
        wish = Wish(
            roll.service,
            roll.version,
            Plan(roll.surge, roll.unavailable, roll.canary),
            Patience(0.5 if small else 4.0, 60.0),
            watch=1.0 if small else 20.0,
        )

        def note(step: str, done: int, total: int) -> None:
            lab.history.note(
                "step", "upgrade", service=roll.service, what=step, done=done, total=total
            )

        upgrade = Upgrade(lab.fleet, lab.directory, wish, tell=note)
        with held(lab.fleet.state.zookeeper, str(roll), upgrade.stop):
            self.results.append((roll, upgrade.run()))


def release(fleet: Fleet, rolls: Sequence[Roll]) -> None:
    """Makes the versions; the broken one breaks the services that are rolled to it.

    Raises:
        FleetError: it can't be made.
    """
    releases = fleet.layout.releases
    releases.make(SECOND)
    path = releases.make(BROKEN).path
    if path is None:
        raise FleetError(f"{BROKEN} is no release")
    for roll in rolls:
        if roll.version == BROKEN:
            main = path / "shoal_gateway" / roll.service / "__main__.py"
            text = main.read_text(encoding="utf-8")
            if MAIN not in text:
                raise FleetError(f"{main} can't be broken: it has no line {MAIN!r}")
            main.write_text(text.replace(MAIN, BREAK), encoding="utf-8")


def by_version(lines: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """When each success was told, in seconds since the begin, by version of the job's manager.

    Args:
        lines: Of a history.
    """
    told = measures.successes(lines)
    found: dict[str, list[float]] = {}
    for line in lines:
        if line["kind"] == "record" and line["job_id"] in told and line["attempts"]:
            version = line["attempts"][-1]["manager_version"] or "unknown"
            found.setdefault(version, []).append(told[line["job_id"]])
    return {version: sorted(found[version]) for version in sorted(found)}


def shortcomings(
    results: Sequence[tuple[Roll, Result]], rolls: Sequence[Roll], versions: Sequence[str]
) -> list[str]:
    """What of the upgrades was not as it must be; a sentence each.

    Args:
        results: What came of each.
        rolls: What was to be done.
        versions: That have run jobs.
    """
    problems = [
        f"{roll}: {result.outcome.value}, and not {roll.wanted.value}. {result.failure}".strip()
        for roll, result in results
        if result.outcome is not roll.wanted
    ]
    problems += [f"{roll}: never begun" for roll in rolls[len(results) :]]
    for roll, result in results:
        if roll.wanted is Outcome.DONE and result.kept:
            problems.append(f"{roll}: {', '.join(result.kept)} were not upgraded")
        if roll.wanted is Outcome.ROLLED_BACK and result.upgraded:
            problems.append(f"{roll}: {', '.join(result.upgraded)} were not rolled back")
    if len(versions) < 2 or BROKEN in versions:
        problems.append(f"jobs ran under {', '.join(versions) or 'no version'}; two must have")
    return problems


def _body(lab: Lab) -> dict[str, Any]:
    settings = lab.settings
    rolls = SMALL if settings.small else FULL
    rng = random.Random(settings.seed)  # noqa: S311 - replayable, not secret
    release(lab.fleet, rolls)
    tasks = workload.naps(settings.jobs, settings.seed, "upgrade", seconds=NAPS)
    roller = Roller(lab)
    faults = [Fault(roll.at * settings.seconds, 0.0, roller.breakage(roll)) for roll in rolls]
    injector = Injector(lab.history, faults)
    client = lab.client()
    client.start(tasks, workload.arrivals(settings.jobs, settings.seconds, rng))
    injector.start()
    try:
        lab.follow(client, settings.seconds + PATIENCE)
        injector.finish(PATIENCE)
    finally:
        injector.stop()
    judged = lab.judge(client, tasks)
    report = lab.report(injector.happened, judged)
    series = by_version(read_history(settings.out))
    throughput(
        settings.out / "throughput.png",
        {f"run by version {version}": moments for version, moments in series.items()},
        injector.happened,
        max([0.0, *(at for each in series.values() for at in each),
             *(each.until for each in injector.happened)]),
        f"{settings.jobs} jobs on {settings.store}, seed {settings.seed}: every service is upgraded"
        if not settings.small
        else f"{settings.jobs} jobs on {settings.store}, seed {settings.seed}: two services are "
        "upgraded",
    )  # fmt: skip
    short = shortcomings(roller.results, rolls, list(series))
    return {
        **report,
        "problems": [*report["problems"], *short],
        "good": report["good"] and not short,
        "jobs_by_version": {version: len(moments) for version, moments in series.items()},
        "upgrades": [
            {
                "what": str(roll),
                "outcome": result.outcome.value,
                "upgraded": list(result.upgraded),
                "kept": list(result.kept),
                "failure": result.failure,
            }
            for roll, result in roller.results
        ],
        "versions_in_the_end": {
            each.id: each.version or lab.fleet.layout.releases.find("").version
            for each in lab.fleet.state.replicas.values()
        },
    }
