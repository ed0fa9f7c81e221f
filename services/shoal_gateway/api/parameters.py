"""What a user may say to an application, checked and typed. Pure.

A value ends as part of one argument of a command, never in a shell. Braces are refused in it, since
a command keeps placeholders (``{python}``) that its host fills in later: no value may add one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shoal_gateway.errors import InvalidError

# Filled in on the host that runs the job.
HOST_PLACEHOLDERS = frozenset({"python", "app"})
MAX_VALUE = 4096
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


class Parameter(BaseModel):
    """A parameter of an application."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    description: str = ""
    type: Literal["string", "integer", "number"]
    default: str | int | float | None = None
    # Bounds of a number, both included.
    min: float | None = None
    max: float | None = None
    # The only values that a string may have; empty: any.
    choices: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Parameter:
        if self.name in HOST_PLACEHOLDERS:
            raise ValueError(f"{{{self.name}}} is filled in by the host and is no parameter")
        if self.type == "string" and (self.min is not None or self.max is not None):
            raise ValueError(f"parameter {self.name} is a string; min and max are for numbers")
        if self.type != "string" and self.choices:
            raise ValueError(f"parameter {self.name} is a number; choices are for strings")
        if self.default is not None:
            try:
                self.canonical(str(self.default), self.name)
            except InvalidError as error:
                raise ValueError(f"default of {error}") from error
        return self

    def canonical(self, value: str, field: str) -> str:
        """The value as it goes into the command: "7" for "+07".

        Raises:
            InvalidError: it is not a value of this parameter; names ``field``.
        """
        if len(value) > MAX_VALUE:
            raise InvalidError(field, f"has {len(value)} characters; at most {MAX_VALUE} may be")
        if self.type == "string":
            return self._text(value, field)
        if self.type == "integer":
            if not _INTEGER.fullmatch(value):
                raise InvalidError(field, f"{value!r} is not a whole number")
            return str(int(self._within(int(value), field)))
        try:
            number = float(value)
        except ValueError:
            raise InvalidError(field, f"{value!r} is not a number") from None
        if not math.isfinite(number):
            raise InvalidError(field, f"{value!r} is not a finite number")
        return repr(self._within(number, field))

    def _text(self, value: str, field: str) -> str:
        if "\0" in value or "{" in value or "}" in value:
            raise InvalidError(field, "must not contain braces or NUL characters")
        if self.choices and value not in self.choices:
            raise InvalidError(field, f"{value!r} must be one of {', '.join(self.choices)}")
        return value

    def _within(self, number: float, field: str) -> float:
        if self.min is not None and number < self.min:
            raise InvalidError(field, f"is {number:g}; must be at least {self.min:g}")
        if self.max is not None and number > self.max:
            raise InvalidError(field, f"is {number:g}; must be at most {self.max:g}")
        return number


def resolve(declared: Sequence[Parameter], given: Mapping[str, str]) -> dict[str, str]:
    """All parameters of an application with their values, in the order of declaration.

    Raises:
        InvalidError: one is missing, unknown or wrong; names it as ``parameters[name]``.
    """
    names = {parameter.name for parameter in declared}
    for name in sorted(given):
        if name not in names:
            allowed = ", ".join(sorted(names)) or "none"
            raise InvalidError(f"parameters[{name}]", f"is not a parameter; there are: {allowed}")
    found = {}
    for parameter in declared:
        field = f"parameters[{parameter.name}]"
        value = given.get(parameter.name)
        if value is None:
            if parameter.default is None:
                raise InvalidError(field, "must be given; it has no default")
            value = str(parameter.default)
        found[parameter.name] = parameter.canonical(value, field)
    return found


def placeholders(command: Sequence[str]) -> set[str]:
    """Names between braces in a command."""
    return {name for argument in command for name in _PLACEHOLDER.findall(argument)}


def fill(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """A command with its parameters; what the host fills in stays as it is.

    One pass: a value is never looked at for further placeholders.
    """
    return [
        _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), argument)
        for argument in command
    ]
