"""A `shoal.Server` in a process of its own, that says when it served and when it was called.

    python -m benchmarks.paired.replica ZOOKEEPER CACHE

It prints ``announced``; at its first call a JSON object with ``served`` and ``first``, of which
either may come first; and at the end of its drain one with ``last``. All are monotonic seconds,
which all processes of a machine share. It drains on SIGTERM, as any server does.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from typing import Any

import shoal
from benchmarks.paired.callers import SERVICE
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc

clock = time.monotonic


class Echo(echo_pb2_grpc.EchoServicer):
    """Answers, and remembers when it was first and last called."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.last = 0.0
        self._first = itertools.count()

    def Echo(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        """One call."""
        self.last = clock()
        if self.server is not None and next(self._first) == 0:
            say(json.dumps({"served": self.server.served, "first": self.last}))
        return echo_pb2.EchoResponse(payload=request.payload)


class Server(shoal.Server):
    """Remembers when it began to serve: from then on a call would be answered."""

    served = 0.0

    def start(self) -> None:
        """Starts, and looks at the clock."""
        super().start()
        self.served = clock()


def say(line: str) -> None:
    """Prints a line, whole, from any thread."""
    with _printing:
        print(line, flush=True)  # noqa: T201 - a program's answer


_printing = threading.Lock()


def main() -> None:
    """The program."""
    hosts, cache = sys.argv[1:]
    echo = Echo()  # type: ignore[abstract]  # streams are not measured
    with shoal.Directory(hosts, cache_dir=cache) as directory:
        server = echo.server = Server(SERVICE)
        echo_pb2_grpc.add_EchoServicer_to_server(echo, server)
        threading.Thread(target=_follow_input, args=(server,), daemon=True).start()
        server.run(directory, ready=lambda _: say("announced"))
    say(json.dumps({"last": echo.last}))


def _follow_input(server: Server) -> None:
    # It ends with who started this; a replica must not outlive that.
    sys.stdin.read()
    server.stop(0.0)


if __name__ == "__main__":
    main()
