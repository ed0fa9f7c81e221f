"""Commands about jobs: submit, follow, cancel, fetch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.text import Text

from shoal_gateway.cli import completing, render
from shoal_gateway.cli.context import out, print_json
from shoal_gateway.cli.keyfiles import KeyFile, signer_of
from shoal_gateway.cli.root import Json, app, bar, where
from shoal_gateway.client import TERMINAL, state_name
from shoal_gateway.convert import unix
from shoal_protos.gateway.model.v1 import job_pb2

JobId = Annotated[
    str, typer.Argument(help="As `shoal jobs` shows.", autocompletion=completing.jobs)
]


@app.command()
def apps(json_: Json = False) -> None:
    """List the applications that jobs can be made of.

    Example:  shoal apps
    """
    with where().gateway() as gateway:
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
        name = (str(row["application"]), "bold")
        out.print(Text.assemble(name, f" ({row['flavor']}): {row['description']}"))
        given = [f"-i {name}=FILE" for name in cast(list[str], row["inputs"])]
        parameters = cast(dict[str, str | None], row["parameters"])
        given += [f"-p {key}={value or 'VALUE'}" for key, value in parameters.items()]
        out.print(f"  shoal submit {row['application']} {' '.join(given)}", style="dim")


@app.command()
def submit(
    application: Annotated[
        str,
        typer.Argument(
            help="name or name@version; see `shoal apps`.", autocompletion=completing.applications
        ),
    ],
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
    key_file: KeyFile = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Don't sign, key or not.")] = False,
    json_: Json = False,
) -> None:
    """Submit jobs; they are signed if there is a private key (see `shoal keys`).

    Examples:  shoal submit nap -p seconds=0.5 --count 20 --wait

    shoal submit climate -i observations.csv=weather.csv -p month=7 -p seed={i} --count 10
    """
    files = [_named(each) for each in inputs or []]
    pairs = [_pair(each) for each in parameters or []]
    signer = None if unsigned else signer_of(where().whose(), key_file)
    with where().gateway(signer) as gateway:
        uploaded = {name: gateway.upload(path) for name, path in files}
        jobs = []
        with bar() as shown:
            task = shown.add_task("submitted", total=count)
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
                shown.advance(task)
            if wait:
                ended = shown.add_task("ended", total=count)
                jobs = _wait(gateway, [job.id for job in jobs], lambda: shown.advance(ended))
    if json_:
        print_json([render.job_json(job) for job in jobs])
    else:
        for job in jobs:
            out.print(job.id, render.coloured(state_name(job.state)), job.reason)
    if wait and any(state_name(job.state) != "SUCCEEDED" for job in jobs):
        raise typer.Exit(1)


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
        list[str] | None,
        typer.Option(
            "--state",
            help="Only these: queued, running, failed …",
            autocompletion=completing.states,
        ),
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
    with where().gateway() as gateway:
        owner = (gateway.owner or gateway.user()) if mine else ""
        found = list(islice(gateway.jobs(owner=owner, states=wanted), limit))
    if json_:
        print_json([render.job_json(job) for job in found])
    else:
        out.print(render.job_table(found))


@app.command()
def job(job_id: JobId, json_: Json = False) -> None:
    """Show one job: state, attempts, history.

    Example:  shoal job 0b9c3f4e-…
    """
    with where().gateway() as gateway:
        found = gateway.get(job_id)
    if json_:
        document = render.job_json(found.job)
        document["attempts"] = [
            {
                "number": each.number,
                "host": each.host,
                "manager": each.manager_id,
                "manager_version": each.manager_version,
                "runner": each.runner_id,
                "outcome": each.outcome,
            }
            for each in found.job.attempts
        ]
        document["events"] = [
            {"at": unix(each.at), "state": state_name(each.state), "message": each.message}
            for each in found.events
        ]
        print_json(document)
        return
    shown = found.job
    out.print(shown.id, shown.spec.application, render.coloured(state_name(shown.state)))
    if shown.reason:
        out.print(f"  {shown.reason}")
    if shown.signed_by:
        out.print(f"  signed by {shown.signed_by}", highlight=False)
    if shown.attempts:
        out.print(render.attempt_table(shown))
    for event in found.events:
        out.print(
            f"  {render.clock(event.at)} {state_name(event.state):<10} {event.message}",
            highlight=False,
        )


@app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the job ends.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error instead.")] = False,
) -> None:
    """Print what a job wrote.

    Example:  shoal logs -f 0b9c3f4e-…
    """
    with where().gateway() as gateway:
        for data in gateway.logs(job_id, stderr=stderr, follow=follow):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


@app.command()
def cancel(job_id: JobId, json_: Json = False) -> None:
    """Cancel a job.

    Example:  shoal cancel 0b9c3f4e-…
    """
    with where().gateway() as gateway:
        found = gateway.cancel(job_id)
    if json_:
        print_json(render.job_json(found))
        return
    word = "is being cancelled" if found.cancelling else f"is {state_name(found.state)}"
    out.print(f"{found.id} {word}")


@app.command()
def replay(
    job_ids: Annotated[
        list[str],
        typer.Argument(
            help="DEAD jobs; see `shoal jobs --state dead`.", autocompletion=completing.jobs
        ),
    ],
    json_: Json = False,
) -> None:
    """Queue DEAD jobs again, with fresh counters, when their cause was seen to.

    Example:  shoal replay 0b9c3f4e-…
    """
    with where().gateway() as gateway:
        found = [gateway.replay(job_id) for job_id in job_ids]
    if json_:
        print_json([render.job_json(job) for job in found])
        return
    for job in found:
        out.print(f"{job.id} is {state_name(job.state)} again")


@app.command()
def outputs(
    job_id: JobId,
    directory: Annotated[
        Path | None, typer.Option("-o", "--output", help="Fetch the files into this directory.")
    ] = None,
    json_: Json = False,
) -> None:
    """List what a job published, or fetch it; checksums are verified.

    Examples:  shoal outputs 0b9c3f4e-…    shoal outputs 0b9c3f4e-… -o results
    """
    with where().gateway() as gateway:
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
