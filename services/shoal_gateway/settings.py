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
        return super().parse_known_args([*self._told(), *said], namespace)

    def _told(self) -> list[str]:
        found = []
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
                if self._switch(name, value):
                    found.append(option)
            else:
                self._check(name, action, value)
                found.append(f"{option}={value}")
        return found

    def _switch(self, name: str, value: str) -> bool:
        if value.lower() in TRUE:
            return True
        if value.lower() not in FALSE:
            self.error(f"{name}={value} is neither true nor false")
        return False

    def _check(self, name: str, action: argparse.Action, value: str) -> None:
        # As argparse would, which would blame the command line.
        try:
            self._check_value(action, self._get_value(action, value))
        except argparse.ArgumentError as error:
            self.error(f"{name}={value}: {error.message}")


def variable(option: str) -> str:
    """Name of the variable for an option: ``SHOAL_STORE_WAIT`` for ``store_wait``."""
    return PREFIX + option.upper().replace("-", "_")
