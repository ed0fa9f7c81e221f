"""Releases: copies of the code that replicas of a version run, kept in the fleet's directory.

A fleet runs the code that started it until it is upgraded. A release is that code, or a checkout's,
copied and given a name; the copy holds the name too, so that a replica that says it runs a release
has read it out of the code it runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import shoal
import shoal_balancer
import shoal_gateway
import shoal_protos
from shoal_gateway import runtime
from shoal_gateway.fleet.errors import FleetError

# What a replica runs, and where a checkout has it.
PACKAGES = {
    "shoal": "sdk",
    "shoal_balancer": "balancer",
    "shoal_gateway": "services",
    "shoal_protos": "protos/gen",
}
_INSTALLED = {
    each.__name__: Path(str(each.__file__)).parent
    for each in (shoal, shoal_balancer, shoal_gateway, shoal_protos)
}
# A name of a directory, and of a version on a command line.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Release:
    """Some code that replicas can run.

    Attributes:
        version: What it is called.
        path: Its packages; None: the code that started the fleet.
    """

    version: str
    path: Path | None

    @property
    def recorded(self) -> str:
        """As `ReplicaState.version` has it."""
        return self.version if self.path is not None else ""


class Releases:
    """The releases of a fleet.

    Args:
        directory: Where they lie.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __iter__(self) -> Iterator[Release]:
        """All that were made, by name."""
        if self._directory.is_dir():
            for path in sorted(self._directory.iterdir()):
                # Without this file the copy was cut off.
                if (path / "release.json").is_file():
                    yield Release(path.name, path)

    def find(self, version: str) -> Release:
        """The release of a name; empty or the installed version: the code that started the fleet.

        Raises:
            FleetError: there is none; says what there is.
        """
        made = {each.version: each for each in self}
        if version in made:
            return made[version]
        base = runtime.installed_version()
        if version in ("", base):
            return Release(base, None)
        known = ", ".join([base, *made])
        raise FleetError(
            f"there is no release {version} here, only {known}; make it with "
            f"`shoal release {version}`"
        )

    def make(self, version: str, checkout: Path | None = None) -> Release:
        """Copies code and calls it ``version``.

        Args:
            version: Not yet taken.
            checkout: Of Shoal; None: the code that runs now.

        Raises:
            FleetError: the name can't be used or is taken, or the checkout is none.
            OSError: it can't be copied.
        """
        if not _NAME.fullmatch(version):
            raise FleetError(f"'{version}' can't name a release: letters, digits and .+_- can")
        target = self._directory / version
        if (target / "release.json").exists() or version == runtime.installed_version():
            raise FleetError(f"there is a release {version} already; give this one another name")
        fresh = self._directory / f".{version}.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        for name, place in PACKAGES.items():
            source = checkout / place / name if checkout is not None else _INSTALLED[name]
            if not source.is_dir():
                raise FleetError(f"{checkout} is no checkout of Shoal: {source} is missing")
            shutil.copytree(source, fresh / name, ignore=shutil.ignore_patterns("__pycache__"))
        (fresh / "shoal_gateway" / runtime.RELEASE_FILE).write_text(version + "\n", "utf-8")
        facts = {"version": version, "from": str(checkout or "installed"), "made": time.time()}
        (fresh / "release.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)  # an earlier copy that was cut off
        fresh.rename(target)
        return Release(version, target)

    def environment(self, version: str) -> dict[str, str]:
        """What a replica's environment needs so that it runs a version's code.

        Raises:
            FleetError: there is no such release.
        """
        release = self.find(version)
        if release.path is None:
            return {}
        others = os.environ.get("PYTHONPATH")
        # Before what is installed, editable or not.
        return {"PYTHONPATH": os.pathsep.join([str(release.path), *([others] if others else [])])}
