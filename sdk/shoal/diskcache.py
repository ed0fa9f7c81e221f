"""The last good sets on disk, from which a caller starts while ZooKeeper is dead."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from shoal import atomically, instance
from shoal.errors import InstanceFormatError
from shoal_balancer import Replica

logger = logging.getLogger(__name__)

FORMAT = 1


def default_directory() -> Path | None:
    """Where snapshots are kept unless the caller says otherwise: the user's cache directory.

    None for a user without a home.
    """
    base = os.environ.get("SHOAL_CACHE_DIR")
    if base:
        return Path(base)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shoal"
    except RuntimeError as error:
        logger.warning(
            "no snapshots are kept (%s), so no caller can start from here while ZooKeeper is away. "
            "Give the directory a cache_dir, or set SHOAL_CACHE_DIR.",
            error,
        )
        return None


class DiskCache:
    """One file a service, replaced atomically. A disk that fails costs a warning, never a call.

    Args:
        directory: Where the files lie; made when it is missing. None keeps nothing.
        ensemble: The ZooKeeper address with chroot: sets of two ensembles never mix.

    Attributes:
        directory: Where the files lie.
    """

    def __init__(self, directory: Path | None, ensemble: str) -> None:
        self.directory = directory
        self._ensemble = ensemble
        self._complained = False

    def path(self, service: str) -> Path | None:
        """The file of a service; None when nothing is kept."""
        if self.directory is None:
            return None
        key = hashlib.sha256(f"{self._ensemble}\0{service}".encode()).hexdigest()[:16]
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in service)
        return self.directory / f"{safe}.{key}.json"

    def save(self, service: str, replicas: Iterable[Replica]) -> None:
        """Writes a set; the file is the old one or the new one, never half of it."""
        document = {
            "format": FORMAT,
            "ensemble": self._ensemble,
            "service": service,
            "saved_at": time.time(),
            "replicas": [instance.encode(service, replica).decode() for replica in replicas],
        }
        target = self.path(service)
        if target is None:
            return
        try:
            atomically.write(target, json.dumps(document).encode())
        except OSError as error:
            if not self._complained:
                self._complained = True
                logger.warning(
                    "%s can't be written (%s): this caller could not start while ZooKeeper is "
                    "away. Give the directory another cache_dir, or set SHOAL_CACHE_DIR.",
                    target,
                    error,
                )

    def load(self, service: str) -> tuple[tuple[Replica, ...], float] | None:
        """The last set and its age in seconds; None when there is none that can be read."""
        target = self.path(service)
        if target is None:
            return None
        try:
            document = json.loads(target.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                return None
            replicas = tuple(instance.decode(data.encode()) for data in document["replicas"])
            return replicas, max(0.0, time.time() - float(document["saved_at"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, InstanceFormatError) as error:
            logger.warning("the snapshot %s can't be read and is passed over: %s", target, error)
            return None

    def services(self) -> frozenset[str]:
        """Of which there is a snapshot of this ensemble."""
        found = set()
        try:
            files = sorted(self.directory.glob("*.json")) if self.directory is not None else []
            for file in files:
                name = self._service_of(file)
                if name is not None:
                    found.add(name)
        except OSError as error:
            logger.warning("%s can't be listed: %s", self.directory, error)
        return frozenset(found)

    def _service_of(self, file: Path) -> str | None:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            name = document["service"] if document["ensemble"] == self._ensemble else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # another's file, or one that `load` complains of
        # The file of that service, and not one that only says so.
        return name if isinstance(name, str) and self.path(name) == file else None
