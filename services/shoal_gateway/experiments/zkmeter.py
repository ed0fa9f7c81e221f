"""What ZooKeeper's servers say of themselves during a run: requests, and who is registered.

They are asked by four-letter words (ZooKeeper's administrator's guide), so the asking needs no
session and goes on when everything else about them is broken.
"""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from shoal.testing import ZooKeeperServer
from shoal_gateway import fourletters

# Seconds between looks.
EVERY = 0.25
# Where replicas announce themselves; other ephemeral nodes are none.
SERVICES = "/services/"
_SESSION = re.compile(r"^0x([0-9a-f]+):$")
_CONNECTED = re.compile(r"sid=0x([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at all servers.

    Attributes:
        at: Monotonic time.
        requests: That they received since the look before, ours not counted.
        leader: Whether one of them leads, so that there is a quorum.
        registered: Paths of replicas whose session is connected to one of them now.
    """

    at: float
    requests: int
    leader: bool
    registered: frozenset[str]


def owners(dump: str) -> dict[int, set[str]]:
    """Of an answer to "dump": the ephemeral nodes of each session."""
    found: dict[int, set[str]] = {}
    session = None
    for line in dump.splitlines():
        if matched := _SESSION.match(line.strip()):
            session = int(matched[1], 16)
        elif session is not None and line.startswith("\t/"):
            found.setdefault(session, set()).add(line.strip())
    return found


def connected(cons: str) -> set[int]:
    """Of an answer to "cons": the sessions that are connected to this server."""
    return {int(each, 16) for each in _CONNECTED.findall(cons)}


class Meter:
    """Looks at the servers several times a second as long as the context lasts.

    What goes wrong in looking is raised where somebody waits for a look, or where the context ends.

    Args:
        servers: Those to ask.
    """

    def __init__(self, servers: Sequence[ZooKeeperServer]) -> None:
        self._servers = servers
        self._received: dict[int, int] = {}
        self._stopped = threading.Event()
        self._looked = threading.Condition()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="zookeeper meter", daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        # What they received before is not of this run.
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def wait(self, wanted: Callable[[Sample], bool], timeout: float) -> Sample | None:
        """The next look that finds what is wanted; None when there was none in time (seconds)."""
        until = time.monotonic() + timeout
        seen = len(self.samples)
        with self._looked:
            while True:
                for sample in self.samples[seen:]:
                    if wanted(sample):
                        return sample
                seen = len(self.samples)
                if self._error is not None:
                    raise self._error
                if not self._looked.wait(max(0.0, until - time.monotonic())):
                    return None

    def _run(self) -> None:
        while not self._stopped.wait(EVERY) and self._error is None:
            sample = None
            try:
                sample = self._look()
            except Exception as error:  # noqa: BLE001 - raised where somebody waits
                self._error = error
            with self._looked:
                if sample is not None:
                    self.samples.append(sample)
                self._looked.notify_all()

    def _look(self) -> Sample:
        at, requests, leads = time.monotonic(), 0, False
        alive: set[int] = set()
        nodes: dict[int, set[str]] = {}
        for number, server in enumerate(self._servers):
            facts = fourletters.figures(server.ask("mntr"))
            if "zk_packets_received" not in facts:
                # It is dead, or has no quorum; a new process counts from 0.
                self._received[number] = 0
                continue
            received = int(facts["zk_packets_received"])
            before = self._received.get(number, 0)
            alive |= connected(server.ask("cons"))
            asked = 2
            if facts.get("zk_server_state") in ("leader", "standalone"):
                leads = True
                nodes = owners(server.ask("dump"))
                asked = 3
            # A server that was replaced between two looks has received less than before.
            requests += max(0, (received - before if received >= before else received) - asked)
            self._received[number] = received
        found = {
            path for session in alive & nodes.keys() for path in nodes[session] if SERVICES in path
        }
        return Sample(at, requests, leads, frozenset(found))


def per_second(samples: Sequence[Sample], begin: float, end: float) -> list[int]:
    """Requests in each whole second from ``begin`` to ``end``, monotonic times."""
    counts = [0] * (int(end - begin) + 1)
    for sample in samples:
        if begin <= sample.at <= end:
            counts[int(sample.at - begin)] += sample.requests
    return counts


@dataclass(frozen=True, slots=True)
class Return:
    """How everybody came back after an outage.

    Attributes:
        seconds: From the first look that found a quorum to the one that found every replica
            registered, by a session that is connected; None when they never were.
        steady: Median of the requests in each second before the outage.
        peak: Most requests in one second after the return.
        total: Requests until all were registered.
    """

    seconds: float | None
    steady: float
    peak: int
    total: int


def returned(samples: Sequence[Sample], expected: frozenset[str], killed: float) -> Return:
    """What the samples say of an outage.

    Args:
        samples: Of the whole run.
        expected: Who was registered before.
        killed: Monotonic time at which the servers were killed.
    """
    first = samples[0].at
    before = per_second(samples, first, max(first, killed - 1.0))
    steady = statistics.median(before) if before else 0.0
    dead = next((each.at for each in samples if each.at >= killed and not each.leader), None)
    back = next(
        (each.at for each in samples if dead is not None and each.at > dead and each.leader), None
    )
    if back is None:
        return Return(None, steady, 0, 0)
    after = [each for each in samples if each.at >= back]
    whole = next((each.at for each in after if expected <= each.registered), None)
    counts = per_second(after, back, after[-1].at)
    total = sum(each.requests for each in after if whole is None or each.at <= whole)
    return Return(None if whole is None else whole - back, steady, max(counts, default=0), total)
