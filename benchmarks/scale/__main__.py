"""What a thousand replicas and hundreds of callers cost one ZooKeeper server, event by event.

Real ZooKeeper, real sessions: a caller is a `shoal.Directory` of its own, replicas are announced by
some sessions and serve nobody. For each event the server's own counters say how many requests and
bytes it took, and the callers when they saw it. Written are scale.json and scale.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import shoal
from benchmarks.paired.processes import Program
from benchmarks.scale.callers import SERVICE
from benchmarks.scale.meter import Peak, Reading
from shoal.testing import ZooKeeperServer

# Seconds that callers get to see something.
PATIENCE = 300.0
# Seconds without an event after each, so that its last answers are counted.
QUIET = 1.0

console = Console(stderr=True)


class Scene:
    """The server, the replicas and the callers.

    Args:
        stack: Ends what is started.
        place: For data and snapshots.
        replicas: How many, in ``processes`` processes.
        sessions: Of all replicas together.
        callers: How many, in as many processes.
        processes: On each side.
        session: Timeout of all sessions, seconds.
    """

    def __init__(
        self,
        stack: ExitStack,
        place: Path,
        *,
        replicas: int,
        sessions: int,
        callers: int,
        processes: int,
        session: float,
    ) -> None:
        self._stack = stack
        self._place = place
        self.replicas, self.callers = replicas, callers
        self.session = session
        self.server = stack.enter_context(ZooKeeperServer(place / "zookeeper"))
        self.hosts = f"{self.server.hosts}/scale"
        self._share = replicas // processes
        self.announcers = [
            self._start("replicas", "announcers", number * self._share, self._share,
                        max(1, sessions // processes))
            for number in range(processes)
        ]  # fmt: skip
        for each in self.announcers:
            each.line()
        self.watchers: list[Program] = []

    def start_callers(self, processes: int) -> None:
        """Their sessions begin."""
        self.watchers = [
            self._start("callers", f"callers-{number}", self.callers // processes)
            for number in range(processes)
        ]
        for each in self.watchers:
            each.line()

    def announcer(self, number: int) -> Program:
        """Who announces a replica."""
        return self.announcers[number // self._share]

    def expect(self, **wanted: Any) -> None:
        """What all callers are to see from now on."""
        for each in self.watchers:
            each.ask(json.dumps({"expect": wanted}))

    def seen(self, patience: float = PATIENCE) -> dict[str, Any]:
        """When all had seen it.

        Raises:
            RuntimeError: some did not within ``patience`` seconds.
        """
        told = [json.loads(each.ask(json.dumps({"await": patience}))) for each in self.watchers]
        missing = sum(each["missing"] for each in told)
        if missing:
            raise RuntimeError(f"{missing} of {self.callers} callers did not see it: {told[0]}")
        return {
            "times": sorted(at for each in told for at in each["times"]),
            "held": sum(each["held"] for each in told),
            "known": [count for each in told for count in each["known"]],
            "youngest": min(each["youngest"] for each in told),
        }

    def ages(self) -> float:
        """The age of the freshest set that any caller has."""
        told = [json.loads(each.ask('{"await": 0}')) for each in self.watchers]
        return min(float(each["youngest"]) for each in told)

    def _start(self, module: str, cache: str, *arguments: int) -> Program:
        return self._stack.enter_context(
            Program(
                f"benchmarks.scale.{module}", self.hosts, str(self._place / cache),
                str(self.session), *map(str, arguments),
            )
        )  # fmt: skip


def event(scene: Scene, name: str, act: Callable[[], object], **wanted: Any) -> dict[str, Any]:
    """Does something, waits until all callers have seen it, and says what it cost.

    Args:
        scene: Where.
        name: Of the event, for a person.
        act: Does it.
        wanted: What callers see then.
    """
    if wanted:
        scene.expect(**wanted)
    before = Reading.of(scene.server)
    with Peak(scene.server) as peak:
        act()
        times = scene.seen()["times"] if wanted else []
        ended = time.monotonic()
        time.sleep(QUIET)  # what is still under way belongs to it, and tells nobody
        after = Reading.of(scene.server)
    row = {"event": name, **after.since(before), "most_requests_in_a_second": peak.requests}
    if times:
        delays = [at - before.at for at in times]
        row["seen_after_seconds"] = {
            "median": round(statistics.median(delays), 3),
            "last": round(max(delays), 3),
        }
    row["seconds"] = round(ended - before.at, 2)
    _tell(row)
    return row


def outage(scene: Scene, dead: float) -> dict[str, Any]:
    """The server dies, and comes back with its data; all sessions outlive it or are made anew."""
    scene.server.kill()
    while scene.ages() == 0.0:
        time.sleep(0.1)  # callers notice one by one, and tell nobody
    time.sleep(dead)  # the length of the outage is what is tried
    with Peak(scene.server) as peak:
        began = time.monotonic()
        scene.server.start()
        serving = time.monotonic()
        scene.expect(count=scene.replicas, watched=True)
        times = scene.seen()["times"]
        time.sleep(QUIET)  # as above
        after = Reading.of(scene.server)
    row = {
        "event": f"ZooKeeper is dead for {serving - began + dead:.0f} s and comes back",
        "seconds": round(times[-1] - serving, 2),
        "requests": after.received,
        "answers_and_events": after.sent,
        "bytes_in": after.read,
        "bytes_out": after.written,
        "processor_seconds": round(after.processor, 2),
        "most_requests_in_a_second": peak.requests,
        "seen_after_seconds": {
            "median": round(max(0.0, statistics.median(times) - serving), 3),
            "last": round(times[-1] - serving, 3),
        },
    }
    _tell(row)
    return row


def guards(scene: Scene, place: Path) -> dict[str, Any]:
    """Most replicas vanish without a word, then all, then ZooKeeper: what callers still know."""
    directory = shoal.Directory(
        scene.hosts, cache_dir=place / "guarded", session_timeout=scene.session
    )
    try:
        with directory.channel(SERVICE) as channel:
            directory.ready(SERVICE, timeout=PATIENCE)
            killed = len(scene.announcers) * 3 // 4 or 1
            for each in scene.announcers[:killed]:
                each.end()
            left = scene.replicas - killed * (scene.replicas // len(scene.announcers))
            scene.expect(count=left)
            scene.seen()
            most = {"announced": left, "may_be_called": len(channel.snapshot().replicas)}
            scene.expect(count=left)
            for each in scene.announcers[killed:]:
                each.end()
            _until(lambda: directory.watch(SERVICE).held)
            held = {"announced": 0, "known": len(directory.watch(SERVICE).replicas())}
    finally:
        directory.close()
    scene.server.kill()
    late = shoal.Directory(scene.hosts, cache_dir=place / "guarded")
    try:
        began = time.monotonic()
        late.ready(SERVICE, timeout=PATIENCE)
        watch = late.watch(SERVICE)
        started = {
            "after_seconds": round(time.monotonic() - began, 2),
            "known": len(watch.replicas()),
            "age_seconds": round(watch.age or 0.0, 1),
        }
    finally:
        late.close()
    return {"most_vanish": most, "all_vanish": held, "start_without_zookeeper": started}


def run(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """All events, in order."""
    rows = []
    with ExitStack() as stack:
        scene = Scene(
            stack, place, replicas=options.replicas, sessions=options.sessions,
            callers=options.callers, processes=options.processes,
            session=options.session,
        )  # fmt: skip
        whole, tenth = options.replicas, max(1, options.replicas // 10)

        def all_start() -> None:
            scene.start_callers(options.processes)
            scene.expect(count=whole)
            scene.seen()

        def first(**what: Any) -> Callable[[], object]:
            return partial(scene.announcer(0).ask, json.dumps(what))

        rows.append(event(scene, "all callers start", all_start))
        for _ in range(options.rounds):
            for word, busy in (("BUSY", 1), ("UP", 0)):
                act = first(status=word, which=[0])
                rows.append(
                    event(scene, "one replica changes its status", act, count=whole, busy=busy)
                )
            rows.append(event(scene, "one replica leaves", first(leave=[0]), count=whole - 1))
            rows.append(event(scene, "one replica joins", first(join=[0]), count=whole))
        some = list(range(min(tenth, scene.replicas // options.processes)))
        rows.append(event(
            scene, f"{len(some)} replicas change their status at once",
            first(status="BUSY", which=some),
            count=whole, busy=len(some),
        ))  # fmt: skip
        since = time.time()
        rows.append(event(
            scene, f"{len(some)} replicas restart within {options.over:g} s",
            first(restart=some, over=options.over),
            count=whole, newer=len(some), since=since,
        ))  # fmt: skip
        rows.append(
            event(
                scene, f"nothing happens for {options.idle:g} s", lambda: time.sleep(options.idle)
            )
        )
        rows.append(outage(scene, options.dead))
        kept = guards(scene, place)
    return {"events": rows, "guards": kept}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown; events that were repeated as median, least and most."""
    lines = [
        "| event | requests | busiest second | bytes out | CPU seconds | all had seen it after |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["event"] for row in rows):
        its = [row for row in rows if row["event"] == name]
        last = [row["seen_after_seconds"]["last"] for row in its if "seen_after_seconds" in row]
        cells = [
            _spread([row["requests"] for row in its]),
            _spread([row["most_requests_in_a_second"] for row in its]),
            _spread([row["bytes_out"] / 1e6 for row in its], " MB", 2),
            _spread([row["processor_seconds"] for row in its], "", 2),
            _spread(last, " s", 2) if last else "",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], unit: str = "", digits: int = 0) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}{unit}"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}–{most:.{digits}f}){unit}"


def _tell(row: dict[str, Any]) -> None:
    console.print(
        f"{row['event']}: {row['requests']} requests, {row['bytes_out'] / 1e6:.2f} MB out, "
        f"{row['processor_seconds']} s of CPU, {row.get('seen_after_seconds', '')}",
        markup=False, highlight=False,
    )  # fmt: skip


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("a caller did not see that all replicas had gone")
        time.sleep(0.05)  # sessions end when ZooKeeper says so


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=40, help="that announce the replicas")
    parser.add_argument("--callers", type=int, default=200, help="each a session")
    parser.add_argument("--processes", type=int, default=4, help="of replicas, and of callers")
    parser.add_argument("--rounds", type=int, default=5, help="of the events of one replica")
    parser.add_argument("--over", type=float, default=10.0, help="seconds of the mass restart")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds without an event")
    parser.add_argument("--dead", type=float, default=15.0, help="seconds without ZooKeeper")
    parser.add_argument("--session", type=float, default=10.0, help="timeout of sessions, seconds")
    parser.add_argument("--out", type=Path, default=Path("build/scale"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="shoal-scale-") as place:
        report = run(options, Path(place))
    report |= {
        "replicas": options.replicas,
        "callers": options.callers,
        "sessions_of_replicas": options.sessions,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scale.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    text = table(report["events"])
    (options.out / "scale.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text + json.dumps(report["guards"]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
