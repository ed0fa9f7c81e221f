"""Commands that run experiments and judge them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from shoal_gateway.cli.context import sure
from shoal_gateway.cli.root import Store, app, where
from shoal_gateway.experiments.settings import Settings

group = typer.Typer(
    help="Experiments on fresh local fleets: seeded, written down, judged by a checker apart.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(group, name="experiment")


class Kind(StrEnum):
    """What happens to an instance."""

    STOP = "stop"
    START = "start"
    TERMINATE = "terminate"


Jobs = Annotated[int, typer.Option(help="How many jobs.", min=10)]
Seed = Annotated[int, typer.Option(help="Of jobs, arrivals, faults and victims.", min=0)]
Kept = Annotated[Store, typer.Option(help="The registry's database.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Where history, report and pictures go (default: build/experiments/NAME)."),
]
Seconds = Annotated[float, typer.Option(help="How long the jobs' arrivals last.", min=1.0)]
Small = Annotated[bool, typer.Option("--small", help="Fewer and shorter faults: a quick look.")]


def _settings(
    name: str, jobs: int, seed: int, store: Store, out: Path | None, seconds: float, small: bool
) -> Settings:
    place = (out or Path("build") / "experiments" / name).absolute()
    return Settings(jobs, seed, place, store.value, seconds, small)


def _under_faults(name: str, seconds: float, text: str) -> None:
    """Adds the command of an experiment that jobs go through while something happens to them."""
    arriving = seconds
    place = {"ensemble": "ensemble.run"}.get(name, name.replace("-", "_"))

    def command(
        jobs: Jobs = 1000,
        seed: Seed = 1,
        store: Kept = Store.SQLITE,
        out: Out = None,
        seconds: Seconds = arriving,
        small: Small = False,
    ) -> None:
        # Only when it is run: what draws pictures takes a second to import.
        module = importlib.import_module(f"shoal_gateway.experiments.{place}")
        raise typer.Exit(module.run(_settings(name, jobs, seed, store, out, seconds, small)))

    group.command(name, help=text)(command)


_under_faults(
    "failure",
    320.0,
    """Kill replicas of every service, pause one, lose a host; every job must succeed once.

    Examples:  shoal experiment failure    shoal experiment failure --store postgres --seed 7
    """,
)
_under_faults(
    "upgrade",
    320.0,
    """Roll every service to a second version under jobs, and a broken one back; none may fail.

    Examples:  shoal experiment upgrade    shoal experiment upgrade --jobs 60 --seconds 25 --small
    """,
)
_under_faults(
    "zookeeper-loss",
    300.0,
    """Kill ZooKeeper's leader, then all of it for a minute; calls and jobs must go on.

    Examples:  shoal experiment zookeeper-loss    shoal experiment zookeeper-loss --small --jobs 60
    """,
)
_under_faults(
    "partition",
    320.0,
    """Break the network between live replicas: drop, delay, half-open, one way, a host cut off.

    Examples:  shoal experiment partition    shoal experiment partition --small --jobs 60
    """,
)
_under_faults(
    "ensemble",
    320.0,
    """Measure ZooKeeper as its paper did: by servers and reads, creates, failures; jobs beside it.

    Examples:  shoal experiment ensemble    shoal experiment ensemble --small --jobs 40 --seconds 25
    """,
)


@group.command()
def capacity(
    jobs: Annotated[
        int, typer.Option(help="N of a usual step; with --small, all jobs.", min=10)
    ] = 50,
    seed: Seed = 1,
    store: Kept = Store.SQLITE,
    out: Out = None,
    small: Annotated[bool, typer.Option("--small", help="Two short steps: a quick look.")] = False,
    celery: Annotated[
        bool, typer.Option(help="Have Celery with Redis do the same jobs beside.")
    ] = True,
) -> None:
    """Offer more and more jobs to one replica of each service, then to three; find the knee.

    Examples:  shoal experiment capacity    shoal experiment capacity --small --jobs 60 --no-celery
    """
    from shoal_gateway.experiments.capacity import run

    settings = _settings("capacity", jobs, seed, store, out, 0.0, small)
    raise typer.Exit(run(settings, celery=celery))


@group.command()
def instances(
    name: Annotated[
        str,
        typer.Option(
            "--name", "-n", envvar="SHOAL_FLEET_NAME", help="The fleet: its tag shoal:fleet."
        ),
    ],
    kind: Annotated[
        list[Kind] | None,
        typer.Option(help="What happens to instances; may be given again (default: stop)."),
    ] = None,
    faults: Annotated[int, typer.Option(help="How many.", min=1)] = 3,
    seconds: Annotated[float, typer.Option(help="In which they begin.", min=1.0)] = 600.0,
    down: Annotated[float, typer.Option(help="Seconds that one stays stopped.", min=0.0)] = 60.0,
    patience: Annotated[
        float, typer.Option(help="Seconds in which the fleet must be whole again.", min=1.0)
    ] = 900.0,
    jobs: Annotated[
        int, typer.Option(help="Naps submitted meanwhile; needs --zookeeper.", min=0)
    ] = 0,
    role: Annotated[str, typer.Option(help="Of the victims.")] = "services",
    seed: Seed = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    region: Annotated[str | None, typer.Option(help="AWS's region.")] = None,
    out: Out = None,
) -> None:
    """Stop, start or terminate random instances of a fleet in EC2, by its tag and seeded.

    One at a time, never one without exactly the tag shoal:fleet=NAME, never the last that runs.

    Examples:  shoal experiment instances --name blue --dry-run

    shoal --zookeeper zk1:2181/gateway experiment instances -n blue --kind stop --kind terminate
    --jobs 200 --seed 7
    """
    from shoal_gateway.aws.instances import Ec2Fleet
    from shoal_gateway.experiments import instances as experiment

    place = (out or Path("build") / "experiments" / "instances").absolute()
    kinds = tuple(each.value for each in kind or [Kind.STOP])
    settings = experiment.Ec2Settings(
        name, role, kinds, faults, seconds, down, patience, seed, jobs, place
    )
    fleet = Ec2Fleet.open(name, region)
    if dry_run:
        for each in experiment.dry_run(settings, fleet):
            group = each["group"] or "no group"
            typer.echo(f"{each['at']:7.1f} s  {each['kind']} {each['instance']} "
                       f"({each['zone']}, {group})")  # fmt: skip
        return
    if jobs and not where().zookeeper:
        raise ValueError("--jobs need to know where to go: shoal --zookeeper HOSTS/CHROOT …")
    sure(f"Have {faults} instances of fleet {name} ({role}) broken: {', '.join(kinds)}?", yes)
    if not jobs:
        raise typer.Exit(experiment.run(settings, fleet, None))
    with where().directory() as directory:
        raise typer.Exit(experiment.run(settings, fleet, directory))


@group.command()
def check(
    directory: Annotated[Path, typer.Argument(help="Of an experiment that has run.")],
    json_: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Judge a history again, from DIR/history.jsonl and DIR/outputs alone.

    Example:  shoal experiment check build/experiments/failure
    """
    # A process of its own: what judges the gateway imports nothing of it.
    command = [sys.executable, "-m", "shoal_checker", str(directory)]
    done = subprocess.run([*command, "--json"] if json_ else command, check=False)
    raise typer.Exit(done.returncode)
