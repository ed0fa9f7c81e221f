"""Configuration as the page shows it: each document, what holds, and its versions."""

from __future__ import annotations

import asyncio
from typing import Any

from shoal.directory import Directory
from shoal.recipes.config import Anything, Config, Revision
from shoal_gateway.tunables import DOCUMENTS

# Seconds for ZooKeeper to answer.
PATIENCE = 5.0


class Documents:
    """Reads documents; each question takes a thread for as long as ZooKeeper takes.

    Args:
        directory: Where they are.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def all(self) -> list[dict[str, Any]]:
        """Each service's document with its history, the latest version first.

        Raises:
            CoordinationError: ZooKeeper did not answer.
        """
        return list(await asyncio.gather(*(self.one(name) for name in DOCUMENTS)))

    async def one(self, name: str) -> dict[str, Any]:
        """One document.

        Raises:
            KeyError: there is no such document.
            CoordinationError: ZooKeeper did not answer.
        """
        model = DOCUMENTS[name]
        kept = await asyncio.to_thread(self._history, name)
        return told(name, model().model_dump(mode="json"), kept)

    def _history(self, name: str) -> list[Revision]:
        with Config(self._directory, name, Anything) as config:
            return config.history(PATIENCE)


def told(name: str, defaults: dict[str, Any], kept: list[Revision]) -> dict[str, Any]:
    """A document for the page.

    Args:
        name: The document's.
        defaults: What the model says where the document says nothing.
        kept: Its versions, the oldest first.
    """
    current = (kept[-1].document or {}) if kept else {}
    versions = []
    for index in range(len(kept) - 1, -1, -1):
        each = kept[index]
        before = (kept[index - 1].document or {}) if index else {}
        first = index == 0 and each.version > 0
        versions.append(
            {
                "version": each.version,
                "when": each.when,
                "who": each.who,
                "why": each.why,
                "restores": each.restores,
                # What the oldest kept one changed is not kept any more, unless it was the first.
                "changes": None if first else changes(before, each.document or {}),
            }
        )
    return {"name": name, "document": current, "defaults": defaults, "versions": versions}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[list[Any]]:
    """Field, old value, new value; None where there is none."""
    old, new = flat(before), flat(after)
    return [
        [path, old.get(path), new.get(path)]
        for path in sorted({*old, *new})
        if old.get(path) != new.get(path)
    ]


def flat(document: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Fields by path, ``retry.attempts``."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        path = f"{above}{name}"
        if isinstance(value, dict):
            found |= flat(value, f"{path}.")
        else:
            found[path] = value
    return found
