"""Callers that watch, many in one process, each with a session of its own.

    python -m benchmarks.scale.callers ZOOKEEPER CACHE SESSION CALLERS

Prints ``ready``. Then a line in, a line out, both JSON: ``{"expect": …}`` says what each caller is
to see, and is answered at once; ``{"await": seconds}`` waits until all have seen it, and is
answered with when (monotonic seconds) and how many did not.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shoal
from shoal_balancer import Replica, Status

SERVICE = "scale"
# Seconds between looks for what no listener is told.
LOOK = 0.02


@dataclass(frozen=True, slots=True)
class Expected:
    """What a caller is to see; what is None does not matter.

    Attributes:
        count: So many replicas.
        busy: So many of them BUSY.
        newer: So many announced after ``since``, seconds since 1970.
        watched: Whether the set is confirmed by ZooKeeper and watched.
    """

    count: int | None = None
    busy: int | None = None
    newer: int | None = None
    since: float = 0.0
    watched: bool = False

    def met(self, replicas: tuple[Replica, ...]) -> bool:
        """Whether this is it."""
        if self.count is not None and len(replicas) != self.count:
            return False
        if self.busy is not None:
            busy = sum(each.status is Status.BUSY for each in replicas)
            if busy != self.busy:
                return False
        if self.newer is None:
            return True
        return sum(each.registered_at >= self.since for each in replicas) >= self.newer


class Caller:
    """One caller.

    Args:
        hosts: ZooKeeper's.
        cache: Its directory for snapshots.
        session: Its session's timeout, seconds.
    """

    def __init__(self, hosts: str, cache: Path, session: float) -> None:
        self._lock = threading.Lock()
        self._replicas: tuple[Replica, ...] = ()
        self._expected: Expected | None = None
        self.seen_at: float | None = None
        self.seen = threading.Event()
        self.directory = shoal.Directory(hosts, cache_dir=cache, session_timeout=session)
        self.watch = self.directory.watch(SERVICE)
        self.watch.subscribe(self._heard)

    def expect(self, expected: Expected) -> None:
        """From now on this is waited for."""
        with self._lock:
            self._expected = expected
            self.seen_at = None
            self.seen.clear()
            self._look()

    def look(self) -> None:
        """Looks whether it is there: that a set is watched again, no listener is told."""
        with self._lock:
            self._look()

    def _heard(self, replicas: tuple[Replica, ...]) -> None:
        with self._lock:
            self._replicas = replicas
            self._look()

    def _look(self) -> None:
        expected = self._expected
        if expected is None or self.seen_at is not None or not expected.met(self._replicas):
            return
        if expected.watched and self.watch.age != 0.0:
            return
        self.seen_at = time.monotonic()
        self.seen.set()


def answer(callers: list[Caller], asked: dict[str, Any]) -> dict[str, Any]:
    """What is said to a line."""
    if "expect" in asked:
        for each in callers:
            each.expect(Expected(**asked["expect"]))
        return {}
    until = time.monotonic() + float(asked["await"])
    left = callers
    while left and time.monotonic() < until:
        left[0].seen.wait(LOOK)
        for each in left:
            each.look()
        left = [each for each in left if each.seen_at is None]
    ages = [each.watch.age or 0.0 for each in callers]
    return {
        "times": [each.seen_at for each in callers if each.seen_at is not None],
        "missing": len(left),
        "youngest": min(ages),
        "known": [len(each.watch.replicas()) for each in callers],
        "held": sum(each.watch.held for each in callers),
    }


def say(text: str) -> None:
    """A line for whoever started us."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(hosts: str, cache: str, session: str, count: str) -> None:
    """Until its input ends."""
    callers = [
        Caller(hosts, Path(cache) / str(number), float(session)) for number in range(int(count))
    ]
    say("ready")
    for line in sys.stdin:
        say(json.dumps(answer(callers, json.loads(line))))
    for each in callers:
        each.directory.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
