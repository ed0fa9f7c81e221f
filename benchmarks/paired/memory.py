"""What a list of replicas costs in memory, as a program.

    python -m benchmarks.paired.memory CALLER TARGET LISTED CALLS

The caller's list holds LISTED addresses of the loopback device, with TARGET's port. Prints what the
resident memory grew by, in MB: with the list alone, and after so many calls one after the other.
What a first channel and a first call bring along is there before.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.paired.callers import REQUEST, TIMEOUT, stub
from benchmarks.paired.echo import loopback


def resident() -> float:
    """This process's resident memory, MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """The program."""
    name, target, listed, calls = sys.argv[1:]
    port = target.rpartition(":")[2]
    targets = [f"{loopback(number)}:{port}" for number in range(int(listed))]
    with ExitStack() as stack:
        stack.enter_context(stub(name, [target])).Echo(REQUEST, timeout=TIMEOUT)
        before = resident()
        echo = stack.enter_context(stub(name, targets))
        found = {"listed": resident() - before}
        for _ in range(int(calls)):
            # With many to connect to, the first call of the peer takes long.
            echo.Echo(REQUEST, timeout=6 * TIMEOUT)
        found["used"] = resident() - before
    print(json.dumps(found), flush=True)  # noqa: T201 - a program's answer


if __name__ == "__main__":
    main()
