"""Documents as commands read, change and show them. No terminal, and no ZooKeeper but to watch."""

from __future__ import annotations

import datetime as dt
import difflib
import json
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from shoal.recipes.config import Config, Reading, Revision
from shoal_gateway.cli import render

# How often a wait looks whether Ctrl-C was pressed, seconds.
LOOK = 0.5

Change = Callable[[dict[str, Any]], None]


def read(name: str, data: bytes) -> dict[str, Any]:
    """A document's fields.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        document = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{name} must be a JSON object, like {{}}")  # noqa: TRY004 - one kind of error for one kind of mistake
    return document


def text(document: Mapping[str, Any]) -> str:
    """A document for people, as it is edited too."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def at(document: Mapping[str, Any], path: str) -> Any:
    """The value of a field, ``retry.attempts``.

    Raises:
        ValueError: it is not set.
    """
    found: Any = document
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ValueError(f"{path} is not set; --effective shows defaults too")
        found = found[part]
    return found


def change(field: str) -> Change:
    """What ``key=value`` does to a document; ``key=`` takes the field away.

    Raises:
        ValueError: it is not of that form.
    """
    path, equals, value = field.partition("=")
    parts = path.split(".")
    if not equals or not all(parts):
        raise ValueError(f"{field!r} is not key=value, or retry.attempts=value")

    def apply(document: dict[str, Any]) -> None:
        place = document
        for part in parts[:-1]:
            below = place.setdefault(part, {})
            if not isinstance(below, dict):
                raise ValueError(f"{path}: {part} has no fields, it is {json.dumps(below)}")  # noqa: TRY004 - as above
            place = below
        if value == "":
            place.pop(parts[-1], None)
        else:
            place[parts[-1]] = parsed(value)

    return apply


def parsed(value: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def changed(document: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """A copy of a document with all changes made."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    for each in changes:
        each(copy)
    return copy


def revision_json(revision: Revision) -> dict[str, Any]:
    """A version for scripts."""
    return {
        "version": revision.version,
        "when": dt.datetime.fromtimestamp(revision.when, dt.UTC).isoformat(),
        "who": revision.who,
        "why": revision.why,
        "restores": revision.restores,
        "document": revision.document,
    }


def diffs(kept: Sequence[Revision]) -> Iterator[str]:
    """What each version changed, the latest first."""
    for index in range(len(kept) - 1, -1, -1):
        after = kept[index]
        said = f": {after.why}" if after.why else ""
        yield f"version {after.version}, {render.when(after.when)}, {after.who or 'somebody'}{said}"
        before = text(kept[index - 1].document or {}) if index else "{}"
        if index == 0 and after.version > 0:
            yield "  (what it changed is not kept any more)"
            continue
        yield from difference(before, text(after.document or {}))


def difference(before: str, after: str) -> Iterator[str]:
    """The lines that differ, with their neighbours, indented."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)
    for line in list(lines)[2:]:
        if not line.startswith("@@"):
            yield f"  {line}"


def colour(line: str) -> str:
    """The style of a line of `diffs`."""
    return {"  +": "green", "  -": "red", "ver": "bold"}.get(line[:3], "")


def watched(config: Config[Any], name: str, *, json_: bool) -> Iterator[str]:
    """A line, or a JSON object, for what holds now and for each change; until the caller stops."""
    news: queue.SimpleQueue[Reading[Any]] = queue.SimpleQueue()
    end = config.subscribe(news.put)
    try:
        while True:
            try:
                reading = news.get(timeout=LOOK)
            except queue.Empty:
                continue
            yield _line(name, reading, json_=json_)
    finally:
        end()


def _line(name: str, reading: Reading[Any], *, json_: bool) -> str:
    document = reading.value.model_dump(mode="json", exclude_unset=True)
    if json_:
        told = {
            "name": name,
            "version": reading.version,
            "source": reading.source.value,
            "problem": reading.problem,
            "document": document,
        }
        return json.dumps(told)
    return f"{render.when(time.time())}  {reading}: {json.dumps(document)}"
