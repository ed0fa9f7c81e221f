"""The host's execution ledger, for many short calls."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Ledger:
    """Appends lines as `supervisor.write_ledger` does, many with one write.

    What is written outlives this process at once. It is not forced to the disk line by line, as a
    supervisor does: a call is over in less time than that takes. Safe for several threads.

    Args:
        path: The ledger; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._lock = threading.Lock()

    def write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Appends a line for each; one write, so that lines of others stay whole.

        Raises:
            OSError: the disk is full or gone.
        """
        now = time.time()
        lines = "".join(json.dumps({**entry, "at": now}) + "\n" for entry in entries)
        if not lines:
            return
        with self._lock:
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self._descriptor = os.open(self.path, flags, 0o644)
            os.write(self._descriptor, lines.encode())

    def close(self) -> None:
        """Lets the file go."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
