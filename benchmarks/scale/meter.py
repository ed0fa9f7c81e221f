"""What a ZooKeeper server had to do: requests, bytes, processor time, by its own word and /proc."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shoal.testing import ZooKeeperServer

TICK = float(os.sysconf("SC_CLK_TCK"))
# Seconds between looks for the busiest second.
EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Reading:
    """The server's counters at one moment.

    Attributes:
        at: Monotonic seconds.
        received: Requests that it has received; ours of the asking counted too.
        sent: Answers and events.
        read: Bytes that it has read, from sockets and files.
        written: Bytes that it has written, to sockets and files: its log is among them.
        processor: Seconds of processor time.
    """

    at: float
    received: int
    sent: int
    read: int
    written: int
    processor: float

    @classmethod
    def of(cls, server: ZooKeeperServer) -> Self:
        """Now.

        Raises:
            RuntimeError: the server does not answer.
        """
        facts = dict(
            line.split("\t", 1) for line in server.ask("mntr").splitlines() if "\t" in line
        )
        if "zk_packets_received" not in facts:
            raise RuntimeError(f"{server!r} does not answer mntr")
        process = Path(f"/proc/{server.pid}")
        io = dict(line.split(": ", 1) for line in (process / "io").read_text("ascii").splitlines())
        fields = (process / "stat").read_text("utf-8").rpartition(")")[2].split()
        return cls(
            time.monotonic(),
            int(facts["zk_packets_received"]),
            int(facts["zk_packets_sent"]),
            int(io["rchar"]),
            int(io["wchar"]),
            (int(fields[11]) + int(fields[12])) / TICK,
        )

    def since(self, before: Reading) -> dict[str, float]:
        """What has come since then, for the report."""
        return {
            "seconds": round(self.at - before.at, 2),
            "requests": self.received - before.received,
            "answers_and_events": self.sent - before.sent,
            "bytes_in": self.read - before.read,
            "bytes_out": self.written - before.written,
            "processor_seconds": round(self.processor - before.processor, 2),
        }


class Peak:
    """The most requests in a second while the context lasts, over windows of about one.

    Args:
        server: It may be dead for a while.
    """

    def __init__(self, server: ZooKeeperServer) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.requests = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        seen: list[tuple[float, int]] = []
        while not self._over.wait(EVERY):
            try:
                now = Reading.of(self._server)
            except (RuntimeError, OSError):
                seen.clear()  # dead; its counters begin again
                continue
            if not seen:
                # All that came since its start.
                seen.append((now.at - 1.0, 0) if now.received < now.at else (now.at, now.received))
            seen.append((now.at, now.received))
            seen = [each for each in seen if each[0] >= now.at - 1.0 - EVERY]
            rate = (now.received - seen[0][1]) / max(1.0, now.at - seen[0][0])
            self.requests = max(self.requests, round(rate))
