"""Puts in place what replicas find on their hosts: catalogue, application code, caches."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path

from shoal_gateway.fleet.layout import FLAVORS, Layout


def install(place: Layout, hosts: Iterable[str]) -> None:
    """Installs what is missing; a host that came back is bare.

    Raises:
        OSError: something can't be copied.
    """
    place.catalogue.mkdir(parents=True, exist_ok=True)
    for name in ("store", "objects"):
        # Jobs may have accounts of their own, and all of this is none of theirs.
        (place.directory / name).mkdir(mode=0o700, exist_ok=True)
    applications = sorted(path for path in (place.project / "examples").iterdir() if path.is_dir())
    for application in applications:
        for entry in application.glob("*.toml"):
            _copy(entry, place.catalogue / f"{application.name}-{entry.name}")
    for host in hosts:
        root = place.root(host)
        for application in applications:
            for name in _names(application):
                _copy(application, root / "apps" / name)
        for flavor in FLAVORS:
            # What jobs of a flavor would otherwise all make first, such as the list of fonts.
            made = place.project / "build" / "flavors" / flavor / "cache"
            if made.is_dir():
                _copy(made, root / "cache" / f"jobs-{flavor}")


def _names(directory: Path) -> set[str]:
    """Applications of a directory, by which hosts look for their code."""
    entries = directory.glob("*.toml")
    return {tomllib.loads(entry.read_text(encoding="utf-8"))["name"] for entry in entries}


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.toml"))
    else:
        shutil.copy2(source, target)
