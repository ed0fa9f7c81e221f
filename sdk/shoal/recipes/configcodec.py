"""A document as bytes and as a value: what may be written, and what is made of what is read.

Writing is strict and reading is lenient: a field that the model does not know is refused on its way
in, and passed over on its way out, where it may have been written by newer code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from shoal.errors import ConfigInvalidError

try:
    from pydantic import BaseModel, RootModel, ValidationError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "shoal.Config needs pydantic: pip install 'shoal[config]'", name=error.name
    ) from error

M = TypeVar("M", bound=BaseModel)
Document = dict[str, Any]

# Of an encoded document, bytes. It travels twice in one request (the document and its entry in the
# history), for which ZooKeeper takes 1 MB, and up to 33 copies of it stay in each server's memory.
LIMIT = 256 * 1024


class Anything(RootModel[dict[str, Any]]):
    """The model of a document whose model is not at hand: any JSON object."""


class Codec(Generic[M]):
    """Reads and writes the documents of one name.

    Args:
        name: The document's, for messages.
        model: What a document must be.
        defaults: Fields that this process sets where the document does not; those that are not set
            in it are the model's.
    """

    def __init__(self, name: str, model: type[M], defaults: M | None = None) -> None:
        self.name = name
        self.model = model
        self._given = _dumped(defaults) if defaults is not None else {}
        self.defaults = self._value(b"{}", self._given)

    def read(self, data: bytes) -> M:
        """The value of a document: its fields over the defaults, unknown ones passed over.

        Raises:
            ConfigInvalidError: it is no JSON object, not valid for the model, or too large.
        """
        document = self.document(data)
        return self._value(data, merged(self._given, document))

    def document(self, data: bytes) -> Document:
        """The fields that a document sets, as they are written.

        Raises:
            ConfigInvalidError: it is no JSON object, or too large.
        """
        self._check_size(len(data))
        try:
            document = json.loads(data)
        except ValueError as error:
            raise ConfigInvalidError(f"config {self.name!r} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ConfigInvalidError(
                f"config {self.name!r} must be a JSON object, not {type(document).__name__}"
            )
        return document

    def write(self, content: M | Mapping[str, Any]) -> bytes:
        """The bytes to write: the fields that are set, in the model's terms.

        What is not set stays unset, so that a later release may change its default.

        Raises:
            ConfigInvalidError: a field is not valid, not known, or would not come back as it is; or
                the document is too large.
        """
        document = _dumped(content) if isinstance(content, BaseModel) else dict(content)
        try:
            validated = self._parsed(json.dumps(document, allow_nan=False), extra="forbid")
            kept = _dumped(validated)
            data = json.dumps(kept, allow_nan=False, ensure_ascii=False, indent=2).encode()
            back = self._parsed(data, extra="forbid")
        except (TypeError, ValueError) as error:
            # ConfigInvalidError is a ValueError too, and says all already.
            if isinstance(error, ConfigInvalidError):
                raise
            raise ConfigInvalidError(
                f"config {self.name!r} can't be written as JSON: {error}"
            ) from error
        if back != validated or (type(content) is self.model and back != content):
            raise ConfigInvalidError(
                f"config {self.name!r} does not come back from JSON as it was: mend the serialisers"
                f" of {self.model.__name__}"
            )
        self._check_size(len(data))
        self.read(data)
        return data

    def _value(self, data: bytes, document: Document) -> M:
        if not self._given:
            return self._parsed(data, extra="ignore")
        return self._parsed(json.dumps(document), extra="ignore")

    def _parsed(self, data: bytes | str, *, extra: Any) -> M:
        try:
            return self.model.model_validate_json(data, extra=extra)
        except ValidationError as error:
            raise ConfigInvalidError(
                f"config {self.name!r} is not valid: {_problems(error)}"
            ) from error

    def _check_size(self, size: int) -> None:
        if size > LIMIT:
            raise ConfigInvalidError(
                f"config {self.name!r} has {size} bytes and may have {LIMIT}: keep large things"
                " elsewhere, and their address here"
            )


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Document:
    """Objects merged field by field; anything else of ``above`` takes the place of what was below.

    >>> merged({"retry": {"attempts": 3, "backoff": 1}}, {"retry": {"attempts": 5}})
    {'retry': {'attempts': 5, 'backoff': 1}}
    """
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        result[key] = merged(under, value) if both else value  # type: ignore[arg-type]  # both says so
    return result


def _dumped(value: BaseModel) -> Document:
    dumped: Document = value.model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude_computed_fields=True
    )
    return dumped


def _problems(error: ValidationError) -> str:
    told = []
    for each in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in each["loc"])
        if each["type"] == "extra_forbidden":
            said = "no such field"
        else:
            given = json.dumps(each["input"], default=str)
            said = each["msg"][:1].lower() + each["msg"][1:]
            said += f" (it is {given})" if len(given) <= 60 and where else ""
        told.append(f"{where}: {said}" if where else said)
    return "; ".join(told)
