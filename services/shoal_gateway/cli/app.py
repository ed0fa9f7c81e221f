"""The commands of ``shoal``."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast

import grpc
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shoal.errors import ShoalError
from shoal.testing.installed import ZooKeeperError
from shoal_gateway import runtime
from shoal_gateway.cli import render
from shoal_gateway.cli.context import Where, err, out, print_json
from shoal_gateway.client import TERMINAL, ChecksumError, state_name
from shoal_gateway.fleet import FleetError
from shoal_gateway.fleet.layout import SERVICES
from shoal_protos.gateway.model.v1 import job_pb2

FAILED, UNREACHABLE = 1, 3

# The fleet that this command is about, for all of its functions.
_meant: ContextVar[Where] = ContextVar("_meant")

app = typer.Typer(
    name="shoal",
    help="A science gateway without a gateway: replicated gRPC services that run jobs, and no "
    "replica's death loses one.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"shoal {runtime.installed_version()}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    fleet: Annotated[
        Path, typer.Option(envvar="SHOAL_FLEET", help="Directory of a local fleet.")
    ] = Path(".shoal"),
    zookeeper: Annotated[
        str | None,
        typer.Option(
            envvar="SHOAL_ZOOKEEPER", help="A fleet elsewhere: zk1:2181,zk2:2181/gateway."
        ),
    ] = None,
    owner: Annotated[
        str, typer.Option(envvar="SHOAL_OWNER", help="Whose jobs (default: the user's name).")
    ] = "",
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of all commands come before the command: shoal --fleet DIR ps."""
    _meant.set(Where(fleet, zookeeper, owner))


def _where() -> Where:
    return _meant.get()


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """A bar that a fleet's slow things move."""
    with _bar() as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield tell


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


@app.command()
def up(
    ensemble: Annotated[int, typer.Option(help="ZooKeeper servers: 1, 3 or 5.", min=1)] = 1,
    hosts: Annotated[int, typer.Option(help="Hosts, as loopback addresses.", min=1, max=20)] = 3,
) -> None:
    """Start a local fleet: ZooKeeper, hosts, and a replica of each service on each host.

    Examples:  shoal up    shoal up --ensemble 3
    """
    with _progress() as tell:
        fleet = _where().local(tell)
        before = fleet.exists
        try:
            state = fleet.up(hosts=hosts, ensemble=ensemble)
        except (KeyboardInterrupt, FleetError, ZooKeeperError):
            # Half a fleet is no use to anybody; one that ran before this command is left alone.
            if fleet.exists and not before:
                fleet.down()
            raise
    out.print(f"{len(state.replicas)} replicas on {hosts} hosts; ZooKeeper at {state.zookeeper}")
    out.print("See them with `shoal ps`, end them with `shoal down`.", style="dim")


@app.command()
def down() -> None:
    """End the local fleet: drain its replicas, then end everything it has started.

    Example:  shoal down
    """
    with _progress() as tell:
        _where().local(tell).down()


@app.command()
def ps(json_: Json = False) -> None:
    """List the replicas: service, host, address, version, flavor, status, since.

    Examples:  shoal ps    shoal ps --json
    """
    where = _where()
    rows: list[dict[str, Any]] = []
    with where.directory() as directory:
        for service in SERVICES:
            watch = directory.watch(service)
            watch.wait_known(10.0)
            rows += [render.replica_json(service, each) for each in watch.replicas()]
        state = directory.describe()
    if not where.zookeeper:
        _note_dead(where, rows)
    rows.sort(key=lambda row: (SERVICES.index(row["service"]), row["flavor"], row["id"]))
    if json_:
        print_json({"zookeeper": where.address(), "state": state, "replicas": rows})
    else:
        out.print(render.replica_table(rows, f"ZooKeeper {where.address()}: {state}"))


def _note_dead(where: Where, rows: list[dict[str, Any]]) -> None:
    """Replicas of the local fleet whose process is gone are DOWN, listed in ZooKeeper or not.

    A killed replica's node stays until its session times out.
    """
    fleet = where.local()
    found = {row["id"]: row for row in rows}
    for each in fleet.state.replicas.values():
        if fleet.running(each.id):
            continue
        row = found.get(each.id)
        if row is None:
            keys = ("address", "version", "zone")
            row = dict.fromkeys(keys, "") | {"port": 0, "since": 0, "flavor": each.flavor}
            row |= {"id": each.id, "service": each.service, "host": each.host}
            rows.append(row)
        row["status"] = "DOWN"


@app.command()
def apps(json_: Json = False) -> None:
    """List the applications that jobs can be made of.

    Example:  shoal apps
    """
    with _where().gateway() as gateway:
        found = gateway.applications()
    rows = [
        {
            "application": f"{each.name}@{each.version}",
            "flavor": each.flavor,
            "description": each.description,
            "inputs": list(each.inputs),
            "outputs": list(each.outputs),
            "parameters": {
                each.name: each.default if each.HasField("default") else None
                for each in each.parameters
            },
        }
        for each in found
    ]
    if json_:
        print_json(rows)
        return
    for row in rows:
        out.print(f"[bold]{row['application']}[/bold] ({row['flavor']}): {row['description']}")
        given = [f"-i {name}=FILE" for name in cast(list[str], row["inputs"])]
        parameters = cast(dict[str, str | None], row["parameters"])
        given += [f"-p {key}={value or 'VALUE'}" for key, value in parameters.items()]
        out.print(f"  shoal submit {row['application']} {' '.join(given)}", style="dim")


@app.command()
def submit(
    application: Annotated[str, typer.Argument(help="name or name@version; see `shoal apps`.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("-i", "--input", help="NAME=FILE, or FILE where its own name is right."),
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="key=value; {i} is the number.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many jobs.", min=1, max=100_000)] = 1,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all have ended.")] = False,
    key: Annotated[
        str | None,
        typer.Option(help="Idempotency key: repeating the command gives the same jobs."),
    ] = None,
    json_: Json = False,
) -> None:
    """Submit jobs.

    Examples:  shoal submit nap -p seconds=0.5 --count 20 --wait

    shoal submit climate -i observations.csv=weather.csv -p month=7 -p seed={i} --count 10
    """
    files = [_named(each) for each in inputs or []]
    pairs = [_pair(each) for each in parameters or []]
    with _where().gateway() as gateway:
        uploaded = {name: gateway.upload(path) for name, path in files}
        jobs = []
        with _bar() as bar:
            task = bar.add_task("submitted", total=count)
            for number in range(1, count + 1):
                jobs.append(
                    gateway.submit(
                        application,
                        inputs=uploaded,
                        parameters={
                            name: value.replace("{i}", str(number)) for name, value in pairs
                        },
                        key=f"{key}-{number}" if key else None,
                    )
                )
                bar.advance(task)
            if wait:
                ended = bar.add_task("ended", total=count)
                jobs = _wait(gateway, [job.id for job in jobs], lambda: bar.advance(ended))
    if json_:
        print_json([render.job_json(job) for job in jobs])
    else:
        for job in jobs:
            out.print(f"{job.id} {render.coloured(state_name(job.state))} {job.reason}")
    if wait and any(state_name(job.state) != "SUCCEEDED" for job in jobs):
        raise typer.Exit(FAILED)


def _wait(gateway: Any, ids: Sequence[str], ended: Any) -> list[Any]:
    for job_id in ids:
        for event in gateway.watch(job_id):
            if event.state in TERMINAL:
                break
        ended()
    return [gateway.get(job_id).job for job_id in ids]


def _named(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    path = Path(file if equals else name)
    if not path.is_file():
        raise typer.BadParameter(f"{path} is no file", param_hint="-i")
    return (name if equals else path.name), path


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not key=value", param_hint="-p")
    return name, value


@app.command()
def jobs(
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only these: queued, running, failed …")
    ] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only my own.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
    json_: Json = False,
) -> None:
    """List jobs, the newest first.

    Examples:  shoal jobs    shoal jobs --state running --state queued --json
    """
    wanted = []
    for word in state or []:
        name = f"STATE_{word.upper()}"
        if name not in job_pb2.State.keys():  # noqa: SIM118 - an enum, not a dict
            raise typer.BadParameter(f"there is no state {word!r}", param_hint="--state")
        wanted.append(job_pb2.State.Value(name))
    with _where().gateway() as gateway:
        owner = gateway.owner if mine else ""
        found = list(islice(gateway.jobs(owner=owner, states=wanted), limit))
    if json_:
        print_json([render.job_json(job) for job in found])
    else:
        out.print(render.job_table(found))


@app.command()
def job(job_id: str, json_: Json = False) -> None:
    """Show one job: state, attempts, history.

    Example:  shoal job 0b9c3f4e-…
    """
    with _where().gateway() as gateway:
        found = gateway.get(job_id)
    if json_:
        document = render.job_json(found.job)
        document["attempts"] = [
            {
                "number": each.number,
                "host": each.host,
                "manager": each.manager_id,
                "runner": each.runner_id,
                "outcome": each.outcome,
            }
            for each in found.job.attempts
        ]
        document["events"] = [
            {"at": render.unix(each.at), "state": state_name(each.state), "message": each.message}
            for each in found.events
        ]
        print_json(document)
        return
    shown = found.job
    out.print(f"{shown.id} {shown.spec.application} {render.coloured(state_name(shown.state))}")
    if shown.reason:
        out.print(f"  {shown.reason}")
    if shown.attempts:
        out.print(render.attempt_table(shown))
    for event in found.events:
        out.print(
            f"  {render.clock(event.at)} {state_name(event.state):<10} {event.message}",
            highlight=False,
        )


@app.command()
def logs(
    job_id: str,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the job ends.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error instead.")] = False,
) -> None:
    """Print what a job wrote.

    Example:  shoal logs -f 0b9c3f4e-…
    """
    with _where().gateway() as gateway:
        for data in gateway.logs(job_id, stderr=stderr, follow=follow):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


@app.command()
def cancel(job_id: str) -> None:
    """Cancel a job.

    Example:  shoal cancel 0b9c3f4e-…
    """
    with _where().gateway() as gateway:
        found = gateway.cancel(job_id)
    word = "is being cancelled" if found.cancelling else f"is {state_name(found.state)}"
    out.print(f"{found.id} {word}")


@app.command()
def outputs(
    job_id: str,
    directory: Annotated[
        Path | None, typer.Option("-o", "--output", help="Fetch the files into this directory.")
    ] = None,
    json_: Json = False,
) -> None:
    """List what a job published, or fetch it; checksums are verified.

    Examples:  shoal outputs 0b9c3f4e-…    shoal outputs 0b9c3f4e-… -o results
    """
    with _where().gateway() as gateway:
        manifest = gateway.outputs(job_id)
        if directory is not None:
            for file in manifest.files:
                gateway.download(job_id, file, directory / file.name)
    if json_:
        files = {each.name: each.object.sha256 for each in manifest.files}
        print_json({"attempt": manifest.attempt, "runner": manifest.runner_id, "files": files})
        return
    for file in manifest.files:
        place = directory / file.name if directory is not None else file.name
        out.print(
            f"{place}  {file.object.size} bytes  sha256 {file.object.sha256}", highlight=False
        )


@app.command()
def kill(
    name: Annotated[str, typer.Argument(help="A replica or a host, as `shoal ps` shows.")],
) -> None:
    """Kill a replica with SIGKILL, or lose a host: all on it at once, and its directory.

    Examples:  shoal kill registry-2    shoal kill host-3
    """
    for each in _where().local().kill(name):
        out.print(f"killed {each}")


@app.command()
def start(
    name: Annotated[
        str | None, typer.Argument(help="A replica or a host; all when left out.")
    ] = None,
) -> None:
    """Start a replica, a host's replicas, or whatever of the fleet does not run.

    Examples:  shoal start registry-2    shoal start host-3    shoal start
    """
    with _progress() as tell:
        started = _where().local(tell).start(name)
    for each in started:
        out.print(f"started {each}")


@app.command()
def demo(
    count: Annotated[int, typer.Option("--jobs", help="How many jobs.", min=10)] = 100,
    seed: Annotated[int, typer.Option(help="Of the faults and the jobs.", min=0)] = 1,
    directory: Annotated[
        Path, typer.Option("--out", help="Where report, picture and logs go.")
    ] = Path("build/demo"),
) -> None:
    """Run jobs through a fresh fleet while replicas and a host are killed, and check everything.

    Example:  shoal demo --jobs 100 --seed 1
    """
    from shoal_gateway.demo.run import demonstrate

    raise typer.Exit(demonstrate(count, seed, directory))


def run(arguments: Sequence[str]) -> int:
    """Runs a command; the exit code: 0 fine, 1 failed, 2 usage, 3 nobody to talk to."""
    # As Ctrl-C: what was started is ended, and not left to itself.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(list(arguments))
    except SystemExit as end:
        # Usage errors (2) and Ctrl-C (130) are said by typer itself.
        return end.code if isinstance(end.code, int) else FAILED
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    except grpc.RpcError as error:
        err.print(f"shoal: {_said(error)}", style="red", markup=False)
        return UNREACHABLE if error.code() is grpc.StatusCode.UNAVAILABLE else FAILED
    except FleetError as error:
        err.print(f"shoal: {error}", style="red", markup=False)
        return UNREACHABLE if "no fleet" in str(error) else FAILED
    except (ShoalError, ZooKeeperError, ChecksumError, OSError, ValueError) as error:
        err.print(f"shoal: {error}", style="red", markup=False)
        return FAILED
    return 0


def _said(error: grpc.RpcError) -> str:
    code = error.code().name.lower().replace("_", " ")
    return f"{code}: {error.details()}"
