"""Which services may call which, where certificates say who calls."""

from __future__ import annotations

from collections.abc import Mapping

# People who look after a fleet, and their programs.
OPERATOR = "operator"

# Everybody with a certificate may call the api: it has its own ways of knowing its users.
CALLERS: Mapping[str, frozenset[str] | None] = {
    "api": None,
    "registry": frozenset({"api", "scheduler", "appmanager", OPERATOR}),
    "scheduler": frozenset({"api", OPERATOR}),
    "appmanager": frozenset({"scheduler", OPERATOR}),
}
