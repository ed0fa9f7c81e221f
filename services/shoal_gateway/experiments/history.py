"""Writing a history; ``shoal_checker.history`` says what its lines hold."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class History:
    """An append-only file of what was seen, one JSON object a line. Safe for several threads.

    Args:
        path: Written anew.
        monotonic: Seconds of a clock that never goes back.
        wall: Seconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._monotonic = monotonic
        self._wall = wall
        self._lock = threading.Lock()
        self._file = path.open("w", encoding="utf-8")
        self._began: float | None = None

    @property
    def began(self) -> float:
        """Monotonic time of the first line; every figure of a run counts from it.

        Raises:
            RuntimeError: there is none yet.
        """
        if self._began is None:
            raise RuntimeError(f"{self.path} has no line yet")
        return self._began

    def note(self, kind: str, source: str, **facts: Any) -> float:
        """Appends a line; its monotonic time."""
        with self._lock:
            # Within the lock, so that the order of lines is the order of their times.
            now = self._monotonic()
            if self._began is None:
                self._began = now
            line = {"kind": kind, "source": source, "monotonic": now, "wall": self._wall(), **facts}
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()
        return now

    def append(self, lines: Iterable[str]) -> None:
        """Takes over lines that other processes of this machine wrote, with the times they gave.

        Call it when they write no more and nothing was noted since they began: their lines are put
        in the order of their times, and the whole history has to stay in it.
        """
        ordered = sorted(lines, key=lambda line: float(json.loads(line)["monotonic"]))
        with self._lock:
            self._file.writelines(f"{line}\n" for line in ordered)
            self._file.flush()

    def close(self) -> None:
        """Nothing more will be written."""
        with self._lock:
            self._file.close()
