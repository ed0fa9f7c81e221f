"""Which module has which command, so that a command loads no other's.

All of them take most of a second to import, and a shell asks for completions with each press of
Tab.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence

MODULES: Mapping[str, str] = {
    name: module
    for module, names in {
        "certs": "certs",
        "config": "config",
        "dashboard": "dashboard",
        "doctor": "doctor",
        "experiments": "experiment",
        "fleets": "up down kill start demo",
        "instances": "fleet",
        "jobs": "apps submit jobs job logs cancel replay outputs",
        "keys": "keys",
        "names": "dns",
        "replicas": "ps",
        "top": "top",
        "upgrades": "release upgrade",
        "users": "users tokens",
        "zookeeper": "zookeeper",
    }.items()
    for name in names.split()
}

# Options that stand before the command, with a value behind them.
VALUED = ("--fleet", "--zookeeper", "--owner", "--tls")


def command_in(arguments: Sequence[str]) -> str | None:
    """The command's name in a command line; None where there is none."""
    rest = iter(arguments)
    for word in rest:
        if word in VALUED:
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return None


def completed(environment: Mapping[str, str]) -> list[str] | None:
    """The words before the one that a shell wants completed; None where no shell asks."""
    if "_SHOAL_COMPLETE" not in environment:
        return None
    if "_TYPER_COMPLETE_ARGS" in environment:  # zsh, fish, PowerShell
        text = environment["_TYPER_COMPLETE_ARGS"]
        words = text.split()
        return words[1:] if text.endswith(" ") else words[1:-1]
    words = environment.get("COMP_WORDS", "").split()  # bash
    number = environment.get("COMP_CWORD", "")
    return words[1 : int(number)] if number.isdecimal() else words[1:-1]


def load(command: str | None) -> None:
    """Imports what adds a command; for one that nobody knows, and for the list of them, all."""
    known = MODULES.get(command) if command is not None else None
    wanted: Iterable[str] = (known,) if known is not None else dict.fromkeys(MODULES.values())
    for module in wanted:
        importlib.import_module(f"shoal_gateway.cli.{module}")
