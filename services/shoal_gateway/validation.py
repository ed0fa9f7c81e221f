"""Checks of request fields; each raises `InvalidError` with the field's name.

They return what they checked, so that a servicer reads as a list of its fields.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from google.protobuf import duration_pb2, message
from google.protobuf.descriptor import EnumDescriptor

from shoal_gateway.errors import InvalidError
from shoal_protos.gateway.model.v1 import job_pb2

T = TypeVar("T")

MAX_NAME = 128
MAX_TEXT = 4096
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def required(value: str, field: str, *, limit: int = MAX_NAME) -> str:
    """A text that is there, prints, and is at most ``limit`` characters long."""
    if not value:
        raise InvalidError(field, "must not be empty")
    return optional(value, field, limit=limit)


def optional(value: str, field: str, *, limit: int = MAX_TEXT) -> str:
    """A text that may be empty."""
    if len(value) > limit:
        raise InvalidError(field, f"has {len(value)} characters; at most {limit} are allowed")
    if "\0" in value:
        raise InvalidError(field, "must not contain a NUL character")
    return value


def label(value: str, field: str) -> str:
    """A name made of letters, digits, dots, dashes and underscores: a flavor, a service's id."""
    required(value, field)
    if not _LABEL.fullmatch(value):
        raise InvalidError(
            field, f"{value!r} may only have letters, digits, '.', '_' and '-', no other first"
        )
    return value


def job_id(value: str, field: str = "id") -> str:
    """A job's id; one that could not be any job's is a mistake and not a job that is missing."""
    required(value, field)
    try:
        uuid.UUID(value)
    except ValueError:
        raise InvalidError(field, f"{value!r} is not a job's id (a UUID)") from None
    return value


def unique_id(value: str, field: str) -> str:
    """A UUID."""
    required(value, field)
    try:
        uuid.UUID(value)
    except ValueError:
        raise InvalidError(field, f"{value!r} is not a UUID") from None
    return value


def between(value: float, field: str, low: float, high: float) -> float:
    """A number within bounds, both included."""
    if not low <= value <= high:
        raise InvalidError(field, f"is {value:g}; must be {low:g} to {high:g}")
    return value


def whole(value: int, field: str, low: int, high: int) -> int:
    """A whole number within bounds, both included."""
    if not low <= value <= high:
        raise InvalidError(field, f"is {value}; must be {low} to {high}")
    return value


def default(value: int, field: str, low: int, high: int, *, instead_of_zero: int) -> int:
    """A whole number within bounds, where 0 asks for the default."""
    return whole(value, field, low, high) if value else instead_of_zero


def present(owner: message.Message, field: str, path: str | None = None) -> None:
    """A message field that must be set."""
    if not owner.HasField(field):
        raise InvalidError(path or field, "must be set")


def seconds(value: duration_pb2.Duration, field: str, low: float, high: float) -> float:
    """A duration within bounds, as seconds."""
    found = value.seconds + value.nanos / 1e9
    if not math.isfinite(found) or not low <= found <= high:
        raise InvalidError(field, f"is {found:g} s; must be {low:g} s to {high:g} s")
    return found


def some(items: Sequence[T], field: str, *, limit: int = 1000) -> Sequence[T]:
    """A list with at least one entry and at most ``limit``."""
    if not items:
        raise InvalidError(field, "must not be empty")
    return at_most(items, field, limit=limit)


def at_most(items: Sequence[T], field: str, *, limit: int = 1000) -> Sequence[T]:
    """A list with at most ``limit`` entries."""
    if len(items) > limit:
        raise InvalidError(field, f"has {len(items)} entries; at most {limit} are allowed")
    return items


def distinct(values: Sequence[str], field: str) -> None:
    """No value twice."""
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise InvalidError(f"{field}[{index}]", f"{value!r} is there twice")
        seen.add(value)


def sha256(value: str, field: str) -> str:
    """64 lower-case hex digits."""
    if not _SHA256.fullmatch(value):
        raise InvalidError(field, "must be a SHA-256: 64 lower-case hex digits")
    return value


def file_name(value: str, field: str) -> str:
    """A relative path that stays within its directory."""
    required(value, field, limit=255)
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or str(path) != value or value == ".":
        raise InvalidError(field, f"{value!r} must be a plain relative path without '..'")
    return value


def known(value: int, field: str, enum: EnumDescriptor) -> int:
    """An enum's value that is declared and is not UNSPECIFIED (0 in every enum here)."""
    names = enum.values_by_number
    if value == 0 or value not in names:
        allowed = ", ".join(names[number].name for number in sorted(names) if number != 0)
        raise InvalidError(field, f"{value} is not one of {allowed}")
    return value


def file_ref(value: job_pb2.FileRef, field: str) -> job_pb2.FileRef:
    """A file's name and where it is stored."""
    file_name(value.name, f"{field}.name")
    present(value, "object", f"{field}.object")
    stored = value.object
    required(stored.key, f"{field}.object.key", limit=1024)
    sha256(stored.sha256, f"{field}.object.sha256")
    if stored.size < 0:
        raise InvalidError(f"{field}.object.size", f"is {stored.size}; must not be negative")
    return value


def function(value: str, field: str) -> str:
    """A function's name, ``module:function``."""
    required(value, field)
    if not _FUNCTION.fullmatch(value):
        raise InvalidError(field, f"{value!r} is not like 'module:function'")
    return value


def work(spec: job_pb2.JobSpec, field: str) -> None:
    """What a job does: a command or a function, not both."""
    if spec.function:
        function(spec.function, f"{field}.function")
        if spec.command:
            raise InvalidError(f"{field}.command", "must be empty beside a function")
        return
    for index, argument in enumerate(some(spec.command, f"{field}.command")):
        optional(argument, f"{field}.command[{index}]")
    required(spec.command[0], f"{field}.command[0]", limit=MAX_TEXT)


def size_of(value: message.Message, field: str, limit: int) -> None:
    """A message that is at most ``limit`` bytes long."""
    found = value.ByteSize()
    if found > limit:
        raise InvalidError(field, f"is {found} bytes long; at most {limit} are allowed")
