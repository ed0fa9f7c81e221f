"""A document in somebody's editor, and what becomes of it when it can't be written."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from shoal.errors import ConfigConflictError, ConfigError
from shoal.recipes.config import Config
from shoal_gateway.cli import documents
from shoal_gateway.cli.context import err


def edit(config: Config[Any], why: str) -> int | None:
    """Has a document edited and writes it over the version that it was; None: nothing changed.

    Raises:
        ConfigError: it was not written. The text is in the file that the message names.
        ValueError: likewise, where it is no JSON.
    """
    stored = config.fetch()
    name = config.name
    before = documents.read(name, stored.data) if stored.version is not None else {}
    handle, path = tempfile.mkstemp(prefix=f"shoal-{name}-", suffix=".json")
    file = Path(path)
    with os.fdopen(handle, "w", encoding="utf-8") as writing:
        writing.write(documents.text(before) + "\n")
    try:
        _run(file)
        after = documents.read(name, file.read_bytes())
        if after == before:
            file.unlink()
            return None
        number = config.set(after, why=why, expected=stored.version)
    except ConfigConflictError as error:
        _show_both(config, file)
        raise ConfigError(f"{error}. Your text is kept in {file}") from error
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{error}. Your text is kept in {file}") from error
    file.unlink()
    return number


def _run(file: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(file)], check=False)
    except OSError as error:
        raise ConfigError(f"the editor {editor!r} can't be run ({error}); set EDITOR") from error
    if done.returncode:
        raise ConfigError(f"the editor {editor!r} ended with exit code {done.returncode}")


def _show_both(config: Config[Any], file: Path) -> None:
    kept = config.history()
    theirs = kept[-1] if kept else None
    mine = file.read_text(encoding="utf-8")
    if theirs is not None:
        said = f", {theirs.why}" if theirs.why else ""
        err.print(f"Version {theirs.version} is there now, by {theirs.who}{said}:")
        there = documents.text(theirs.document or {})
    else:
        err.print("The document is gone.")
        there = "{}"
    err.print(there, highlight=False)
    err.print("Yours, against it:")
    for line in documents.difference(there, mine.strip()):
        err.print(line, style=documents.colour(line), highlight=False)
