"""Options of a command line from the environment: ``--store-wait`` is also ``SHOAL_STORE_WAIT``.

systemd's units and containers set variables, not arguments; and what is secret, such as a store's
password, must not stand in a process list. What the command line says wins.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "SHOAL_"
# A release's version is what its code says. The cache's place the SDK reads by itself.
NOT_FROM_THERE = ("help", "version", "cache")

# Stands for what a variable says wrongly, until the command line says it better.
_WRONG = object()

TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Parser(argparse.ArgumentParser):
    """A command line whose options may come from the environment.

    Args:
        environment: Where to look.
        arguments: As argparse's.
    """

    def __init__(
        self, *arguments: Any, environment: Mapping[str, str] = os.environ, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._environment = environment

    def parse_known_args(  # type: ignore[override] # argparse's overloads are about namespaces
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's, with what the environment says in front."""
        said = sys.argv[1:] if args is None else list(args)
        told, wrong = self._told()
        namespace = argparse.Namespace() if namespace is None else namespace
        for action, _ in wrong:
            action.required = False
            setattr(namespace, action.dest, _WRONG)
        found, rest = super().parse_known_args([*told, *said], namespace)
        for action, message in wrong:
            if getattr(found, action.dest) is _WRONG:
                self.error(message)
        return found, rest

    def _told(self) -> tuple[list[str], list[tuple[argparse.Action, str]]]:
        """Options as the environment says them, and which it says wrongly and why."""
        found, wrong = [], []
        for action in self._actions:
            if not action.option_strings or action.dest in NOT_FROM_THERE:
                continue
            name = variable(action.dest)
            # Empty means unset: neither a unit nor a compose file can leave one out.
            value = self._environment.get(name, "")
            if not value:
                continue
            option = action.option_strings[-1]
            if action.nargs == 0:
                if value.lower() in TRUE:
                    found.append(option)
                elif value.lower() not in FALSE:
                    wrong.append((action, f"{name}={value} is neither true nor false"))
                continue
            # As argparse would, which would blame the command line.
            try:
                self._check_value(action, self._get_value(action, value))
            except argparse.ArgumentError as error:
                wrong.append((action, f"{name}={value}: {error.message}"))
            else:
                found.append(f"{option}={value}")
        return found, wrong


def variable(option: str) -> str:
    """Name of the variable for an option: ``SHOAL_STORE_WAIT`` for ``store_wait``."""
    return PREFIX + option.upper().replace("-", "_")
