"""All commands of ``shoal``, as its users can type them."""

import typer

from shoal_gateway.cli import loading
from shoal_gateway.cli.root import app


def leaves():
    """Each command's words and click's object for it."""
    loading.load(None)
    return dict(_below(typer.main.get_command(app), ()))


def top_level():
    """The first words there are."""
    loading.load(None)
    return set(typer.main.get_command(app).commands)


def _below(command, words):
    nested = getattr(command, "commands", None)
    if nested is None:
        yield words, command
        return
    for name, each in nested.items():
        yield from _below(each, (*words, name))
