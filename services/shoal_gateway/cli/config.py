"""Commands about the configuration that services follow while they run."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from shoal.recipes.config import Anything, Config, Revision
from shoal_gateway.cli import completing, documents, editing, render
from shoal_gateway.cli.context import err, out, print_json
from shoal_gateway.cli.root import Json, app, where
from shoal_gateway.tunables import DOCUMENTS

group = typer.Typer(
    help="The configuration that services follow while they run: documents in ZooKeeper, validated,"
    " with their history.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(group, name="config")

Name = Annotated[
    str,
    typer.Argument(
        help="The document: api, registry, scheduler, appmanager, or your own.",
        autocompletion=completing.services,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="Pydantic model of a document of your own, as module:Class."),
]
Why = Annotated[str, typer.Option("-m", "--message", help="Why, for the history.")]
Expected = Annotated[
    int | None,
    typer.Option(help="Write only over this version (-1: only where no document is)."),
]


@group.command("get")
def get(
    name: Name,
    path: Annotated[str | None, typer.Argument(help="Only this field: retry.attempts")] = None,
    version: Annotated[int | None, typer.Option(help="As it was then.")] = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="With the defaults of what is not set.")
    ] = False,
    model: Model = None,
    json_: Json = False,
) -> None:
    """Print a document: the fields that are set. --json adds its version.

    Examples:  shoal config get scheduler    shoal config get scheduler lease --effective

    shoal config get api --version 3    shoal config get registry --json
    """
    with _config(name, model, any_model=not effective) as config:
        if version is None:
            stored = config.fetch()
            number, data = stored.version, stored.data
        else:
            found = _revision(config, version)
            number, data = version, json.dumps(found.document).encode()
    document = documents.read(name, data) if number is not None else {}
    if effective:
        kind = _model(name, model, any_model=False)
        document = kind.model_validate(document, extra="ignore").model_dump(mode="json")
    if number is None:
        err.print(f"There is no document {name}: defaults hold.", style="dim")
    shown = documents.at(document, path) if path else document
    print_json({"name": name, "version": number, "document": shown} if json_ else shown)


@group.command("set")
def set_(
    name: Name,
    fields: Annotated[
        list[str] | None,
        typer.Argument(help="key=value, retry.attempts=5; key= takes the default again."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "-f",
            "--file",
            help="The whole document, a JSON file; - is standard input.",
        ),
    ] = None,
    message: Why = "",
    expected: Expected = None,
    model: Model = None,
    json_: Json = False,
) -> None:
    """Change fields of a document, or replace it. What is not valid is refused and changes nothing.

    Services follow within a second. Values are JSON where they can be read as JSON, else text.

    Examples:  shoal config set scheduler lease=10 -m "shorter offers"

    shoal config set api limit=200 retry.attempts=2    shoal config set api limit=

    shoal config set registry -f registry.json --expected 4    echo '{}' | shoal config set api -f -
    """
    if bool(fields) == (file is not None):
        raise typer.BadParameter("give either fields, key=value, or a whole document with --file")
    changes = [documents.change(field) for field in fields or ()]
    with _config(name, model) as config:
        if file is not None:
            content = documents.read(name, _content(file))
            wanted: Any = "any" if expected is None else None if expected < 0 else expected
            number = config.set(content, why=message, expected=wanted)
        elif expected is not None:
            stored = config.fetch()
            content = documents.changed(
                documents.read(name, stored.data) if stored.version is not None else {}, changes
            )
            number = config.set(content, why=message, expected=None if expected < 0 else expected)
        else:
            number = config.update(lambda before: documents.changed(before, changes), why=message)
    _written(name, number, json_=json_)


@group.command("edit")
def edit(name: Name, message: Why = "", model: Model = None) -> None:
    """Open a document in $EDITOR and write what is saved, if nobody else has written meanwhile.

    What is not valid, or came too late, is shown, and the text is kept in a file.

    Examples:  shoal config edit scheduler    EDITOR=nano shoal config edit api -m "workshop"
    """
    with _config(name, model) as config:
        number = editing.edit(config, message)
    if number is None:
        out.print("Nothing was changed.")
    else:
        _written(name, number, json_=False)


@group.command("history")
def history(
    name: Name,
    show: Annotated[bool, typer.Option("--diff", help="Show what each version changed.")] = False,
    json_: Json = False,
) -> None:
    """List the versions that are kept, the latest first: when, who, why.

    Examples:  shoal config history scheduler --diff    shoal config history api --json
    """
    with _config(name, None, any_model=True) as config:
        kept = config.history()
    if json_:
        print_json([documents.revision_json(each) for each in reversed(kept)])
        return
    if not kept:
        out.print(f"There is no document {name}.")
    elif show:
        for line in documents.diffs(kept):
            out.print(line, style=documents.colour(line), highlight=False)
    else:
        out.print(render.revision_table(kept))


@group.command("rollback")
def rollback(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(help="To this one's content (default: the one before).")
    ] = None,
    message: Why = "",
    model: Model = None,
    json_: Json = False,
) -> None:
    """Write the content of an earlier version as a new one. It must be valid today.

    Examples:  shoal config rollback scheduler    shoal config rollback api 3 -m "was too strict"
    """
    with _config(name, model) as config:
        number = config.rollback(version, why=message)
    _written(name, number, json_=json_)


@group.command("watch")
def watch(name: Name, model: Model = None, json_: Json = False) -> None:
    """Print a document, and then each change, until Ctrl-C. --json prints one object a line.

    Where the model is known, a document that services would pass over is told as such.

    Examples:  shoal config watch scheduler    shoal config watch api --json | jq .document
    """
    known = name in DOCUMENTS or model is not None
    with _config(name, model, any_model=not known) as config:
        for line in documents.watched(config, name, json_=json_):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


@contextmanager
def _config(name: str, model: str | None, *, any_model: bool = False) -> Iterator[Config[Any]]:
    kind = _model(name, model, any_model=any_model)
    with where().directory() as directory, Config(directory, name, kind) as config:
        yield config


def _model(name: str, model: str | None, *, any_model: bool) -> type[BaseModel]:
    if model is not None:
        return _imported(model)
    if any_model:
        return Anything
    found = DOCUMENTS.get(name)
    if found is None:
        known = ", ".join(DOCUMENTS)
        raise typer.BadParameter(
            f"the model of {name!r} is not known (known are {known}): give it with --model, as"
            " module:Class"
        )
    return found


def _imported(model: str) -> type[BaseModel]:
    module, _, attribute = model.partition(":")
    # As `python -m` does: models lie beside whoever calls.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(f"{model!r} can't be imported: {error}") from error
    finally:
        sys.path.pop(0)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise typer.BadParameter(f"{model!r} is no pydantic model")
    return found


def _revision(config: Config[Any], version: int) -> Revision:
    kept = config.history()
    for each in kept:
        if each.version == version:
            return each
    there = ", ".join(str(each.version) for each in kept) or "none"
    raise typer.BadParameter(f"there is no version {version} of {config.name}; kept are: {there}")


def _content(file: Path) -> bytes:
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()


def _written(name: str, number: int, *, json_: bool) -> None:
    if json_:
        print_json({"name": name, "version": number})
    else:
        out.print(f"{name} is at version {number}.", highlight=False)
