"""The application catalogue: what users may run, from TOML files.

name = "nap"
version = "1.0"
description = "Waits for a while and says so"
flavor = "local"
command = ["{python}", "{app}/nap.py", "--seconds", "{seconds}", "--out", "nap.json"]
outputs = ["nap.json"]

[[parameters]]
name = "seconds"
type = "number"
min = 0
max = 3600

[resources]
wall_seconds = 60
memory_mib = 256

[retry]
exit_codes = [75]
max_failures = 3

Instead of a command, `function = "module:function"` names a Python function in the application's
directory. A warm worker process calls it with the parameters as keyword arguments, all strings.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shoal_gateway import validation as check
from shoal_gateway.api.parameters import HOST_PLACEHOLDERS, Parameter, placeholders
from shoal_gateway.errors import InvalidError, NotFoundError

_LABEL = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"


class CatalogueError(Exception):
    """A catalogue that can't be used; names the file and what is wrong in it."""


class Resources(BaseModel):
    """Limits of one attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wall_seconds: float = Field(default=3600.0, gt=0.0, le=1e9)
    memory_mib: int = Field(default=1024, ge=1, le=1 << 30)


class Retry(BaseModel):
    """Which exit codes put a job back into the queue, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exit_codes: tuple[int, ...] = ()
    max_failures: int = Field(default=3, ge=0, le=1000)

    @model_validator(mode="after")
    def _codes_are_failures(self) -> Retry:
        for code in self.exit_codes:
            if not 1 <= code <= 255:
                raise ValueError(f"exit code {code} must be 1 to 255")
        return self


class Application(BaseModel):
    """One version of an application."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_LABEL)
    version: str = Field(pattern=_LABEL)
    description: str = ""
    flavor: str = Field(pattern=_LABEL)
    # One argument an entry, never a shell; empty where there is a function.
    command: tuple[str, ...] = ()
    function: str = ""
    parameters: tuple[Parameter, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    resources: Resources = Resources()
    retry: Retry = Retry()

    @property
    def full_name(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Application:
        names = [parameter.name for parameter in self.parameters]
        if bool(self.command) == bool(self.function):
            raise ValueError("there must be a command or a function, and not both")
        if self.command:
            self._command_uses(names)
        try:
            if self.function:
                check.function(self.function, "function")
            check.distinct(names, "parameters")
            check.distinct(self.inputs, "inputs")
            check.distinct(self.outputs, "outputs")
            for field, files in (("inputs", self.inputs), ("outputs", self.outputs)):
                for index, name in enumerate(files):
                    check.file_name(name, f"{field}[{index}]")
        except InvalidError as error:
            raise ValueError(str(error)) from error
        return self

    def _command_uses(self, names: list[str]) -> None:
        used = placeholders(self.command)
        for name in sorted(used - HOST_PLACEHOLDERS - set(names)):
            raise ValueError(f"command: {{{name}}} is not a parameter")
        for name in names:
            if name not in used:
                raise ValueError(f"parameter {name} is not used in the command")


class Catalogue:
    """Applications by name and version. Immutable.

    Raises:
        CatalogueError: two have the same name and version.
    """

    def __init__(self, applications: Iterable[Application]) -> None:
        self.applications = tuple(
            sorted(applications, key=lambda each: (each.name, version_key(each.version)))
        )
        self._by_full_name = {each.full_name: each for each in self.applications}
        # In ascending order of version: the newest stays.
        self._newest = {each.name: each for each in self.applications}
        for full_name, count in Counter(each.full_name for each in self.applications).items():
            if count > 1:
                raise CatalogueError(f"{full_name} is in the catalogue {count} times")

    @classmethod
    def load(cls, directory: Path) -> Catalogue:
        """Reads every ``*.toml`` below a directory.

        Raises:
            CatalogueError: the directory is missing, or a file is wrong; says which and where.
        """
        if not directory.is_dir():
            raise CatalogueError(f"{directory} is not a directory; it should hold *.toml files")
        return cls(_read(path) for path in sorted(directory.rglob("*.toml")))

    def find(self, wanted: str) -> Application:
        """The newest version of ``name``, or exactly ``name@version``.

        Raises:
            NotFoundError: there is none; says what there is.
        """
        found = (self._by_full_name if "@" in wanted else self._newest).get(wanted)
        if found is None:
            known = ", ".join(each.full_name for each in self.applications) or "nothing"
            raise NotFoundError(
                f"application: {wanted!r} is not in the catalogue, which has {known}"
            )
        return found


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order of versions: numbers by value, and before words, so that 1.10 comes after 1.9."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (-1, 0, part)
        for part in re.split(r"[._-]", version)
    )


def _read(path: Path) -> Application:
    try:
        return Application.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogueError(f"{path}: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'application'}: {each['msg']}"
            for each in error.errors()
        )
        raise CatalogueError(f"{path}: {wrong}") from error
