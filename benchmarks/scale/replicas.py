"""Replicas that are announced and serve nobody, many in one process.

    python -m benchmarks.scale.replicas ZOOKEEPER CACHE SESSION FIRST COUNT SESSIONS

Prints ``ready`` when all are announced. Then a line in, a line out, both JSON: ``{"status": "BUSY",
"which": [3, 4]}``, ``{"restart": [3, 4], "over": 10}`` (each leaves and comes back, spread over so
many seconds), ``{"leave": [3]}``, ``{"join": [3]}``; numbers count from FIRST.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import shoal
from benchmarks.scale.callers import SERVICE, say
from shoal_balancer import Replica, Status

# As long as those of the gateway's services.
METADATA = {
    "grpc.services": "shoal.gateway.registry.v1.Registry,grpc.health.v1.Health,shoal.v1.Replica",
    "keepalive": "10",
    "protos": "0" * 64,
}


class Announced:
    """The replicas of this process."""

    def __init__(self, directories: list[shoal.Directory], numbers: range) -> None:
        self._directories = directories
        self._registrations: dict[int, Any] = {}
        for number in numbers:
            self.join(number)

    def join(self, number: int) -> None:
        """Announces one."""
        directory = self._directories[number % len(self._directories)]
        replica = Replica(
            f"replica-{number:05}",
            f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            50051,
            version="1.4.2",
            flavor="sql",
            zone="us-east-1a",
            host=f"host-{number:05}",
            metadata=METADATA,
        )
        self._registrations[number] = directory.announce(SERVICE, replica, timeout=120.0)

    def leave(self, number: int) -> None:
        """It leaves in order."""
        self._registrations.pop(number).withdraw()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Does what a line says."""
        if "status" in asked:
            for number in asked["which"]:
                self._registrations[number].say(Status(asked["status"]))
        for number in asked.get("leave", ()):
            self.leave(number)
        for number in asked.get("join", ()):
            self.join(number)
        wanted = asked.get("restart", ())
        began = time.monotonic()
        for place, number in enumerate(wanted):
            time.sleep(max(0.0, began + asked["over"] * place / len(wanted) - time.monotonic()))
            self.leave(number)
            self.join(number)
        return {}

    def close(self) -> None:
        """All leave."""
        for each in self._directories:
            each.close()


def main(hosts: str, cache: str, session: str, first: str, count: str, sessions: str) -> None:
    """Until its input ends."""
    directories = [
        shoal.Directory(hosts, cache_dir=cache, session_timeout=float(session))
        for _ in range(int(sessions))
    ]
    announced = Announced(directories, range(int(first), int(first) + int(count)))
    say("ready")
    for line in sys.stdin:
        say(json.dumps(announced.answer(json.loads(line))))
    announced.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
