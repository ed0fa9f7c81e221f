"""Load on ZooKeeper from a process of its own.

Each session has a thread, a server, and a number of requests under way. What was answered is
counted in buckets of the machine's monotonic clock, which all processes share, and printed in the
end as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from shoal_gateway.experiments.ensemble import wire

# Seconds of a bucket.
BUCKET = 0.05
# As in the paper.
NODE = b"x" * 1024
NODES = 64
ROOT = "/load"
# Seconds until a session that lost its server tries the next one.
AGAIN = 0.05
# Longest wait for an answer before the clock is looked at again, seconds.
LOOK = 0.02

Operation = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process of load does.

    Attributes:
        servers: Addresses and ports; sessions are spread over them.
        begin: When it starts, monotonic seconds.
        end: When it ends.
        sessions: How many.
        first: Number of the first one, so that processes differ.
        reads: Share of reads among the operations; None: creates and deletes.
        window: Operations of a session under way at once.
        rate: Operations a second and session; None: as many as are answered.
        seed: Of the order of reads and writes.
    """

    servers: list[tuple[str, int]]
    begin: float
    end: float
    sessions: int = 4
    first: int = 0
    reads: float | None = 1.0
    window: int = 64
    rate: float | None = None
    seed: int = 1


@dataclass(slots=True)
class Counted:
    """What became of it.

    Attributes:
        reads: Answered reads by bucket.
        writes: Answered writes and creates by bucket.
        errors: Answers that were ZooKeeper's errors.
        lost: Operations whose connection broke before an answer.
        processors: Processor seconds that the load itself used, for each second.
    """

    reads: dict[int, int] = field(default_factory=dict)
    writes: dict[int, int] = field(default_factory=dict)
    errors: int = 0
    lost: int = 0
    processors: float = 0.0

    def add(self, other: Counted) -> None:
        """Takes another's in."""
        for mine, its in ((self.reads, other.reads), (self.writes, other.writes)):
            for bucket, count in its.items():
                mine[bucket] = mine.get(bucket, 0) + count
        self.errors += other.errors
        self.lost += other.lost
        self.processors += other.processors

    def of(self, begin: float, end: float) -> int:
        """Operations answered between two times."""
        first, last = int(begin / BUCKET), int(end / BUCKET)
        return sum(
            count
            for its in (self.reads, self.writes)
            for bucket, count in its.items()
            if first <= bucket < last
        )


class Script(Protocol):
    """Which operations a session sends."""

    def due(self, now: float, under_way: int) -> Sequence[Operation]:
        """What is to be sent now."""

    def answered(self, kind: int) -> None:
        """An operation has come back."""


class Mix:
    """Reads and writes of a few nodes, in an order that only the seed knows.

    Args:
        plan: Shares, window, rate.
        rng: Of this session.
        begin: When it starts, monotonic seconds.
    """

    def __init__(self, plan: Plan, rng: random.Random, begin: float) -> None:
        paths = [f"{ROOT}/{number}" for number in range(NODES)]
        reads = [(wire.GET_DATA, wire.get(each)) for each in paths]
        writes = [(wire.SET_DATA, wire.put(each, NODE)) for each in paths]
        share = 1.0 if plan.reads is None else plan.reads
        self._operations = [
            rng.choice(reads if rng.random() < share else writes) for _ in range(4096)
        ]
        self._window, self._rate = plan.window, plan.rate
        self._next = 0
        self._paced = begin

    def due(self, now: float, under_way: int) -> Sequence[Operation]:
        """As many as the window and the rate let go."""
        free = self._window - under_way
        if self._rate is not None:
            # What could not be sent in time is left out: afterwards nothing is caught up with.
            self._paced = max(self._paced, now - 0.1)
            free = min(free, int((now - self._paced) * self._rate))
            self._paced += max(0, free) / self._rate
        first = self._next
        self._next = (first + max(0, free)) % len(self._operations)
        return [self._operations[(first + each) % len(self._operations)] for each in range(free)]

    def answered(self, kind: int) -> None:
        """All are alike."""


class Creates:
    """Creates a node, waits, asks for its end without waiting, creates the next: as the paper did.

    Args:
        number: Of the session: its nodes are its own.
    """

    def __init__(self, number: int) -> None:
        self._prefix = f"{ROOT}/made-{number}-"
        self._made = 0
        self._waits = False

    def due(self, now: float, under_way: int) -> Sequence[Operation]:  # noqa: ARG002 - a script's
        """The next, when the last is there."""
        if self._waits:
            return []
        self._waits = True
        path = f"{self._prefix}{self._made}"
        create = (wire.CREATE, wire.make(path, NODE))
        if not self._made:
            return [create]
        before = f"{self._prefix}{self._made - 1}"
        return [(wire.DELETE, wire.remove(before)), create]

    def answered(self, kind: int) -> None:
        """A node is there."""
        if kind == wire.CREATE:
            self._made += 1
            self._waits = False


class Session:
    """One session's load, on a thread of its own.

    Args:
        plan: What to do.
        number: Of the session among all processes'.
    """

    def __init__(self, plan: Plan, number: int) -> None:
        self._plan = plan
        self._number = number
        self._rng = random.Random(plan.seed * 1009 + number)  # noqa: S311 - replayable, not secret
        self._reads: Counter[int] = Counter()
        self._writes: Counter[int] = Counter()
        self.counted = Counted()
        self.error: Exception | None = None

    def run(self) -> None:
        """From begin to end, over as many connections as it takes; what goes wrong is kept."""
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - raised by who started the thread
            self.error = error

    def _run(self) -> None:
        plan = self._plan
        place = self._number
        while time.monotonic() < plan.end:
            try:
                connection = wire.Connection(*plan.servers[place % len(plan.servers)], timeout=1.0)
            except (OSError, wire.WireError):
                place += 1
                time.sleep(AGAIN * self._rng.uniform(0.5, 1.5))  # nobody tells when it is back
                continue
            try:
                self._drive(connection)
            except (OSError, wire.WireError):
                place += 1
            finally:
                connection.close()
        self.counted.reads, self.counted.writes = dict(self._reads), dict(self._writes)

    def _drive(self, connection: wire.Connection) -> None:
        plan = self._plan
        begin = max(plan.begin, time.monotonic())
        script: Script = (
            Creates(self._number) if plan.reads is None else Mix(plan, self._rng, begin)
        )
        time.sleep(max(0.0, plan.begin - time.monotonic()))
        connection.socket.settimeout(LOOK)
        under_way: deque[int] = deque()
        xid = 0
        try:
            while (now := time.monotonic()) < plan.end:
                frames = []
                for kind, body in script.due(now, len(under_way)):
                    xid += 1
                    frames.append(wire.request(xid, kind, body))
                    under_way.append(kind)
                if frames:
                    connection.send(b"".join(frames))
                for error in connection.arrived():
                    kind = under_way.popleft()
                    script.answered(kind)
                    self._count(kind, error)
        finally:
            self.counted.lost += len(under_way) if time.monotonic() < plan.end else 0

    def _count(self, kind: int, error: int) -> None:
        if error:
            self.counted.errors += 1
        elif kind == wire.GET_DATA:
            self._reads[int(time.monotonic() / BUCKET)] += 1
        elif kind != wire.DELETE:
            self._writes[int(time.monotonic() / BUCKET)] += 1


def prepare(server: tuple[str, int]) -> None:
    """Makes the nodes that are read and written; those that are there stay.

    Raises:
        OSError, WireError: nobody serves.
    """
    connection = wire.Connection(*server)
    try:
        for path in (ROOT, *(f"{ROOT}/{number}" for number in range(NODES))):
            connection.call(wire.CREATE, wire.make(path, NODE))
    finally:
        connection.close()


def run(plan: Plan) -> Counted:
    """Carries a plan out in this process."""
    sessions = [Session(plan, plan.first + number) for number in range(plan.sessions)]
    threads = [threading.Thread(target=each.run) for each in sessions]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    total = Counted()
    for session in sessions:
        if session.error is not None:
            raise session.error
        total.add(session.counted)
    total.processors = time.process_time() / max(plan.end - plan.begin, BUCKET)
    return total


def parse(text: str) -> Counted:
    """What a process has printed."""
    found = json.loads(text)
    for name in ("reads", "writes"):
        found[name] = {int(bucket): count for bucket, count in found[name].items()}
    return Counted(**found)


def main() -> None:
    """Says that it is ready, and carries out the plan that it then reads."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    asked = json.loads(sys.stdin.readline())
    servers = [(str(host), int(port)) for host, port in asked.pop("servers")]
    sys.stdout.write(json.dumps(asdict(run(Plan(servers, **asked)))) + "\n")


if __name__ == "__main__":
    main()
