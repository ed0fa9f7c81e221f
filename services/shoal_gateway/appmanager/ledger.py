"""The host's execution ledger, for many short calls."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class LedgerError(Exception):
    """The host can't account for what it runs, so it must run nothing."""


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
            LedgerError: the disk is full or gone. The manager ends for it: one that went on would
                draw jobs to a host that can't do any.
        """
        now = time.time()
        lines = "".join(json.dumps({**entry, "at": now}) + "\n" for entry in entries)
        if not lines:
            return
        with self._lock:
            try:
                if self._descriptor < 0:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                    self._descriptor = os.open(self.path, flags, 0o644)
                rest = memoryview(lines.encode())
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                raise LedgerError(
                    f"{self.path} can't be written ({error.strerror}), so that this host can't "
                    "account for what it runs; make room there and start its app manager again"
                ) from error

    def close(self) -> None:
        """Lets the file go."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
