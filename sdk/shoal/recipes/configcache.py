"""The last good document on disk, from which a process starts while ZooKeeper is away."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from shoal import atomically
from shoal.recipes.configstate import Observed

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A document as it was kept.

    Attributes:
        seen: The document.
        age: Seconds since it was kept.
    """

    seen: Observed
    age: float


class ConfigCache:
    """One file for a document. A disk that fails costs a warning, never a value.

    Args:
        directory: Of the directory's snapshots; None keeps nothing.
        ensemble: The ZooKeeper address with chroot: documents of two ensembles never mix.
        name: The document's.
    """

    def __init__(self, directory: Path | None, ensemble: str, name: str) -> None:
        key = hashlib.sha256(f"{ensemble}\0{name}".encode()).hexdigest()[:16]
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        self.path = directory / "config" / f"{safe}.{key}.json" if directory is not None else None

    def save(self, seen: Observed) -> None:
        """Keeps a document that was found good."""
        if self.path is None:
            return
        document = {
            "format": FORMAT,
            "saved_at": time.time(),
            "version": seen.version,
            "data": seen.data.decode(),
        }
        try:
            atomically.write(self.path, json.dumps(document).encode())
        except OSError as error:
            logger.warning(
                "%s can't be written (%s): while ZooKeeper is away, this process would start from"
                " defaults. Give the directory another cache_dir, or set SHOAL_CACHE_DIR.",
                self.path,
                error,
            )

    def load(self) -> Kept | None:
        """What was kept; None when there is nothing that can be read."""
        if self.path is None:
            return None
        try:
            document = json.loads(self.path.read_bytes())
            if document["format"] != FORMAT:
                return None
            seen = Observed(document["data"].encode(), int(document["version"]))
            return Kept(seen, max(0.0, time.time() - float(document["saved_at"])))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("the snapshot %s can't be read and is passed over: %s", self.path, error)
            return None

    def forget(self) -> None:
        """There is no document any more."""
        if self.path is None:
            return
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s is out of date and can't be removed: %s", self.path, error)
