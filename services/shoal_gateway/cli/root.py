"""What all commands of ``shoal`` share: the application, its options, progress bars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shoal_gateway.cli.context import Where, err, out

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


class Store(StrEnum):
    """What the registry keeps jobs in."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


class Users(StrEnum):
    """Whether callers have to say who they are."""

    OPEN = "open"
    REQUIRED = "required"


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def _version(wanted: bool) -> None:
    if wanted:
        from shoal_gateway import runtime

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
    tls: Annotated[
        Path | None,
        typer.Option(
            envvar="SHOAL_TLS",
            help="Directory with my certificate: tls.crt, tls.key, ca.crt (default: for a local "
            "fleet with TLS, its operator's).",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of all commands come before the command: shoal --fleet DIR ps."""
    _meant.set(Where(fleet, zookeeper, owner, tls))


def where() -> Where:
    """The fleet that this command is about."""
    return _meant.get()


@contextlib.contextmanager
def progress() -> Iterator[Any]:
    """A bar that a fleet's slow things move."""
    with bar() as shown:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield tell


def bar() -> Progress:
    """A progress bar on standard error."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )
