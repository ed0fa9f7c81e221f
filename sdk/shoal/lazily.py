"""Names of a package that are loaded when they are first asked for (PEP 562).

`import shoal` is in the way of every program's start, and each program uses a part of it. Type
checkers see the ordinary imports that stand beside, under ``TYPE_CHECKING``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Getter = Callable[[str], Any]
Lister = Callable[[], list[str]]


def names(package: str, homes: Mapping[str, str]) -> tuple[Getter, Lister]:
    """A package's ``__getattr__`` and ``__dir__``.

    A name is kept in the package once it was asked for, so that it is looked up as any other.

    Args:
        package: The package's name.
        homes: Names that a module has, with spaces between, by the module.
    """
    home_of = {name: module for module, listed in homes.items() for name in listed.split()}

    def get(name: str) -> Any:
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        found = getattr(import_module(home), name)
        setattr(sys.modules[package], name, found)
        return found

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, listed
