"""How many calls rolling restarts lose when nobody may try again: none, or this says which and why.

Real ZooKeeper, three replicas, each a process, restarted in turn with SIGTERM and a start, every
other time on the port that the last one had. Callers are threads of one process and tasks of
another, with Shoal's retries off and grpc's transparent one too; and some are idle. Written is
report.json: calls, rate, each failed call with its code, details and time, and each drain's report,
which names the callers that have confirmed that they moved away.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.paired.processes import Program
from shoal.drainreport import DrainReport
from shoal.testing.zookeeper import ZooKeeperServer

KINDS = ("sync", "aio")
REPLICAS = 3


class Replica:
    """A replica's place in the set: one process after the other.

    Args:
        hosts: ZooKeeper's.
        name: Its id, which stays.
        kind: "sync" or "aio".
    """

    def __init__(self, hosts: str, name: str, kind: str) -> None:
        self._hosts = hosts
        self.name = name
        self._kind = kind
        self.target = ""
        self._program: Program | None = None

    def start(self, bind: str = "127.0.0.1:0") -> None:
        """Starts it, and waits until it is announced."""
        self._program = Program(
            "benchmarks.drain.replica", self._hosts, self.name, self._kind, bind
        )
        self._called = False
        while not self.target:
            self._read()

    def called(self) -> None:
        """Waits for its first call."""
        while not self._called:
            self._read()

    def leave(self) -> DrainReport:
        """SIGTERM, and what its drain saw; returns when the process has ended."""
        program = self._running()
        program.signal(signal.SIGTERM)
        while "confirmed" not in (line := program.line()):
            pass
        code = program.process.wait(60)
        if code:
            raise RuntimeError(f"{self.name} ended with {code}")
        program.end()
        self.target = ""
        return DrainReport.from_json(line)

    def end(self) -> None:
        """Ends it at once."""
        if self._program is not None:
            self._program.end()

    def _read(self) -> None:
        said = json.loads(self._running().line())
        self.target = said.get("announced", self.target)
        self._called = self._called or "called" in said

    def _running(self) -> Program:
        if self._program is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._program


def measured(kind: str, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """One run of so many restarts with servers of one kind."""
    with contextlib.ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = f"{stack.enter_context(ZooKeeperServer()).hosts}/drain"
        replicas = [Replica(hosts, f"echo-{number}", kind) for number in range(REPLICAS)]
        for each in replicas:
            stack.callback(each.end)
            each.start()
        callers = {
            each: stack.enter_context(
                Program(
                    "benchmarks.drain.callers",
                    hosts,
                    str(cache / each),
                    each,
                    str(options.callers // 2),
                    str(options.rate / 2),
                )
            )
            for each in ("threads", "tasks")
        }
        for program in callers.values():
            program.line()
        for each in replicas:
            each.called()
        began = time.monotonic()
        drains = []
        for number in range(options.restarts):
            drains.append(restarted(replicas[number % REPLICAS], number, began))
            console.print(f"{kind} {number + 1}/{options.restarts}: {summary(drains[-1])}")
        seconds = time.monotonic() - began
        seen = {each: json.loads(program.ask()) for each, program in callers.items()}
    calls = sum(each["calls"] for each in seen.values())
    return {
        "servers": kind,
        "restarts": options.restarts,
        "callers": options.callers,
        "seconds": seconds,
        "began": began,
        "calls": calls,
        "calls_per_second": calls / seconds,
        "failed": sum(len(each["failures"]) for each in seen.values()),
        "by_callers": seen,
        "drains": drains,
    }


def restarted(replica: Replica, number: int, began: float) -> dict[str, Any]:
    """One restart: when, and what the drain saw."""
    at = time.monotonic() - began
    before = replica.target
    report = replica.leave()
    left = time.monotonic() - began
    # On the old port a caller's connection may be taken for the old replica's; on a new one not.
    replica.start(before if number % 2 else "127.0.0.1:0")
    announced = time.monotonic() - began
    replica.called()
    return {
        "at": at,
        "left": left,
        "announced": announced,
        "called": time.monotonic() - began,
        "same_port": replica.target == before,
        "report": json.loads(report.to_json(replica=replica.name)),
    }


def summary(drain: dict[str, Any]) -> str:
    """A drain in a line."""
    return f"{drain['report']['replica']} {DrainReport.from_json(json.dumps(drain['report']))}"


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--servers", choices=KINDS, action="append", help="default: one, then both")
    parser.add_argument("--restarts", type=int, default=20, help="default: 20")
    parser.add_argument("--callers", type=int, default=32, help="that call steadily (default: 32)")
    parser.add_argument("--rate", type=float, default=1300.0, help="calls a second they offer")
    parser.add_argument("--out", type=Path, default=Path("build/drain"), help="build/drain")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs it; 1 when a call failed."""
    options = options_of(sys.argv[1:] if arguments is None else arguments)
    # As with Ctrl-C: what was started is ended on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(soft_wrap=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "report.json"
    runs: list[dict[str, Any]] = []
    for kind in options.servers or KINDS:
        run = measured(kind, options, console)
        runs.append(run)
        path.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
        console.print(
            f"{kind} servers: {run['restarts']} restarts, {run['calls']} calls, "
            f"{run['calls_per_second']:.0f} a second, {run['failed']} failed"
        )
        for who, seen in run["by_callers"].items():
            for failure in seen["failures"][:10]:
                console.print(f"  {who}: {failure}")
    console.print(str(path))
    return int(any(run["failed"] for run in runs))


if __name__ == "__main__":
    sys.exit(main())
