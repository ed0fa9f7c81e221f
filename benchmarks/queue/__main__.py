"""What a queued job costs in ZooKeeper and in the registry's store, by how many jobs wait.

One client puts a job at the end, takes the first and says that it is done, so the length stays.
Each round gives every queue of every length a turn, in an order that changes. The registry works in
this process, without the call that its users make; ZooKeeper is one server that is spared its
fsync. So the figures to look at are how each changes with the length.

For example:
  python -m benchmarks.queue
  python -m benchmarks.queue --sizes 100 5000 --rounds 7 --out /tmp/queue
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from rich.console import Console

from benchmarks.paired.report import markdown, table
from benchmarks.paired.rows import Row, ratios
from benchmarks.queue import plots
from benchmarks.queue.queues import DELETING, LOCKING, REGISTRY, Deleting, Line, Locking, Sql
from shoal.testing import ZooKeeperServer
from shoal.testing.installed import find_classpath, find_java

NAMES = (REGISTRY, LOCKING, DELETING)
SIZES = (100, 1_000, 10_000, 100_000)
# What Java's client says of an answer beyond its jute.maxbuffer.
TOO_LARGE = "is out of range"

Turn = tuple[float, float]
Found = dict[tuple[int, str], list[Turn]]


@contextmanager
def lines(
    zookeeper: ZooKeeperServer, place: Path, sizes: Sequence[int]
) -> Iterator[dict[tuple[int, str], Line]]:
    """The three queues of every length, filled."""
    client = KazooClient(zookeeper.hosts, timeout=30.0)
    client.start(timeout=30.0)
    made: dict[tuple[int, str], Line] = {}
    with ExitStack() as open_stores:
        try:
            for size in sizes:
                sql = Sql(place / f"waiting-{size}")
                open_stores.callback(sql.close)
                made[size, REGISTRY] = sql
                made[size, LOCKING] = Locking(client, path_of(size))
                made[size, DELETING] = Deleting(client, path_of(size))
                for name in NAMES:
                    made[size, name].fill(size)
            yield made
        finally:
            client.stop()
            client.close()


def path_of(size: int) -> str:
    """Where ZooKeeper's queues of a length are."""
    return f"/queue-{size}"


def turn(line: Line, seconds: float) -> Turn:
    """Jobs per second, and bytes moved a job, for so long, and for one job at least."""
    before, jobs, began = line.moved(), 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds or not jobs:
        line.turn()
        jobs += 1
    return jobs / took, (line.moved() - before) / jobs


def measured(made: dict[tuple[int, str], Line], rounds: int, seconds: float) -> Found:
    """Rounds of all queues."""
    found: Found = {each: [] for each in made}
    order = list(made)
    for each in order:
        made[each].turn()  # warm
    for number in range(rounds):
        at = number % len(order)
        for each in order[at:] + order[:at]:
            found[each].append(turn(made[each], seconds))
    return found


def java_lists(zookeeper: ZooKeeperServer, size: int) -> str:
    """What Java's own client says to a list of so many: ``listed``, or why not."""
    command = [find_java(), "-Xmx256m", "-cp", find_classpath()]
    command += ["org.apache.zookeeper.ZooKeeperMain", "-server", zookeeper.hosts]
    command += ["ls", f"{path_of(size)}/entries"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120.0, check=False)
    if done.returncode == 0 and "entry-" in done.stdout:
        return "listed"
    told = [line for line in (done.stdout + done.stderr).splitlines() if TOO_LARGE in line]
    return told[0].rpartition("IOException: ")[2] if told else f"failed ({done.returncode})"


def rows_of(found: Found, sizes: Sequence[int]) -> list[Row]:
    """Rates, bytes, and how they stand to each other and to those of the shortest queue."""
    rows = []
    for size in sizes:
        case = f"{size} jobs wait"
        rates = {name: _rates(found[size, name]) for name in NAMES}
        moved = {name: [each[1] for each in found[size, name]] for name in NAMES}
        for name in NAMES:
            rows.append(Row(case, name, "jobs/s", tuple(rates[name])))
            rows.append(Row(case, name, "bytes a job", tuple(moved[name])))
        rows += [
            Row(case, name, "registry's jobs/s ÷ peer's", ratios(rates[REGISTRY], rates[name]))
            for name in NAMES
            if name != REGISTRY
        ]
        if size != sizes[0]:
            metric = f"jobs/s ÷ those with {sizes[0]}"
            rows += [
                Row(case, name, metric, ratios(rates[name], _rates(found[sizes[0], name])))
                for name in NAMES
            ]
    return rows


def _rates(turns: Sequence[Turn]) -> list[float]:
    return [rate for rate, _ in turns]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.queue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="jobs that wait")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each queue in a round")
    parser.add_argument("--out", type=Path, default=Path("build/bench-queue"))
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="shoal-queue-") as directory,
        ZooKeeperServer() as zookeeper,
        lines(zookeeper, Path(directory), options.sizes) as made,
    ):
        found = measured(made, options.rounds, options.seconds)
        java = {size: java_lists(zookeeper, size) for size in options.sizes}
    rows = rows_of(found, options.sizes)
    report: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "load": os.getloadavg(),
        },
        "rounds": options.rounds,
        "java_client": java,
        "rows": [{**row.record(), "values": row.values} for row in rows],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "queue.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (options.out / "queue.md").write_text(markdown(rows), encoding="utf-8")
    plots.draw(rows, options.sizes, java, options.out / "queue.png")
    console = Console(width=160)
    console.print(table(rows))
    console.print({f"Java's client, a list of {size}": said for size, said in java.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
