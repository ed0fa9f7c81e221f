"""Puts together what is learnt of a fleet, and tells the pages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from shoal.tls import Tls
from shoal_balancer import Replica
from shoal_gateway.dashboard import flows, zookeeper
from shoal_gateway.dashboard.asking import Asker
from shoal_gateway.dashboard.flows import Flow, Flows
from shoal_gateway.dashboard.hub import Hub, event
from shoal_gateway.dashboard.series import COLUMNS, JobTimes, Series
from shoal_gateway.dashboard.sights import Key, Marker, Reach, Roll, Sight, happened

logger = logging.getLogger(__name__)

# Seconds in which changes are gathered before pages hear of them.
GATHER = 0.05
# Markers that are kept.
MARKERS = 500
# Between replicas, so many flows are told one by one; of more, sums only.
SINGLE_FLOWS = 400
# Seconds from the start in which the replicas are found that are there.
ARRIVING = 3.0
# Seconds between questions to ZooKeeper's servers.
ZOOKEEPER_EVERY = 2.0


class Watch(Protocol):
    """A service's watch, as `shoal.Directory` and `shoal.testing.FixedDirectory` make it."""

    def subscribe(self, listener: Callable[[tuple[Replica, ...]], None]) -> Callable[[], None]:
        """Calls the listener with every new set."""


class Source(Protocol):
    """A directory, as far as it is looked at here."""

    caller_id: str
    tls: Tls | None

    def watch(self, service: str) -> Any:
        """The watch of a service."""


class Watcher:
    """What is known of a fleet now and of the last minutes. On one event loop.

    Args:
        directory: Where replicas are found.
        hosts: ZooKeeper's address, to ask its servers; None: there is none to ask.
        state: Says how the directory's session is, for a person.
        clock: Monotonic seconds.
        wall: Seconds since 1970.
    """

    def __init__(
        self,
        directory: Source,
        *,
        hosts: str | None = None,
        state: Callable[[], str] = lambda: "fixed",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._hosts = hosts
        self._state = state
        self._clock = clock
        self._wall = wall
        self._roll = Roll()
        self._reach: dict[Key, Reach] = {}
        self._flows = Flows()
        self._sights: dict[Key, Sight] = {}
        self._markers: deque[Marker] = deque(maxlen=MARKERS)
        self._series = Series(int(wall()))
        self._jobs = JobTimes(self._series, wall)
        self._job_changes = 0
        self._members: list[zookeeper.Member] = []
        self._tick: dict[str, Any] = {}
        self._began = clock()
        self._unsubscribe: dict[str, Callable[[], None]] = {}
        self._gathering: asyncio.TimerHandle | None = None
        self._asker = Asker(
            f"{directory.caller_id}/dashboard", directory.tls, self._told, self._noticed
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self.hub = Hub(self._whole)

    @property
    def services(self) -> tuple[str, ...]:
        """Services that are followed."""
        return tuple(self._unsubscribe)

    @property
    def sights(self) -> Sequence[Sight]:
        """The replicas as they are now."""
        return tuple(self._sights.values())

    def follow(self, services: Iterable[str]) -> None:
        """Follows these services too, from now on. On the event loop."""
        loop = self._loop = asyncio.get_running_loop()
        for service in services:
            if service in self._unsubscribe:
                continue

            def listed(replicas: tuple[Replica, ...], service: str = service) -> None:
                # On a thread of the directory's; the loop may have ended meanwhile.
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._listed, service, replicas)

            self._unsubscribe[service] = self._directory.watch(service).subscribe(listed)

    async def run(self) -> None:
        """Until it is cancelled or fails: a tick a second, and looks at ZooKeeper."""
        work = [asyncio.create_task(self._beats())]
        if self._hosts is not None:
            work.append(asyncio.create_task(self._ask_zookeeper(self._hosts)))
        try:
            await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Follows nothing any more, and ends the pages' streams."""
        for unsubscribe in self._unsubscribe.values():
            unsubscribe()
        self._unsubscribe.clear()
        self.hub.close()
        await self._asker.close()

    def note_job(self, job_id: str, state: str, at: float) -> None:
        """A job entered a state."""
        self._jobs.note(job_id, state, at)
        self._job_changes += 1

    def mark(self, kind: str, text: str) -> None:
        """Something happened that is not seen from the replicas."""
        self._add([Marker(self._wall(), kind, text)])

    def _listed(self, service: str, replicas: tuple[Replica, ...]) -> None:
        self._roll.update(service, replicas, self._clock())
        self._asker.follow(service, replicas)
        present = {(service, each.id) for each in replicas}
        for key in [key for key in self._reach if key[0] == service and key not in present]:
            del self._reach[key]
            self._flows.forget(key)
        self._changed()

    def _noticed(self, key: Key, reach: Reach) -> None:
        if self._reach.get(key) is not reach:
            self._reach[key] = reach
            if reach is Reach.REFUSED:
                self._flows.forget(key)
            self._changed()

    def _told(self, key: Key, callees: Sequence[Any]) -> None:
        self._flows.tell(key, callees, self._clock())

    def _changed(self) -> None:
        if self._gathering is None and self._loop is not None:
            self._gathering = self._loop.call_later(GATHER, self._look)

    def _look(self) -> None:
        self._gathering = None
        now = self._clock()
        current = self._flows.current(now)
        seen = {
            sight.key: sight
            for sight in self._roll.sights(self._reach, flows.ejectors(current), now)
        }
        if seen == self._sights:
            return
        before, self._sights = self._sights, seen
        found = happened(before, seen, self._wall())
        if now - self._began < ARRIVING:
            # What was there already when we came has not just arrived; what breaks has broken.
            found = [each for each in found if each.kind == "fault"]
        self._add(found)
        self.hub.publish("fleet", self._fleet())

    def _add(self, markers: list[Marker]) -> None:
        self._markers.extend(markers)
        if markers:
            self.hub.publish("markers", [asdict(each) for each in markers])

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(1.0 - self._wall() % 1.0)
            self._beat()

    def _beat(self) -> None:
        wall, now = self._wall(), self._clock()
        current = self._flows.current(now)
        # The second that has just ended; the one that begins is not counted yet.
        bucket = self._series.at(int(wall) - 1)
        if current:
            everything = flows.total(current)
            bucket.calls, bucket.failures = everything.rate, everything.failures
            bucket.latency = everything.latency
        self._look()
        self._tick = self._ticked(wall, current)
        # Job events come a little later than they happen, so the last seconds are told again.
        self.hub.publish("tick", {**self._tick, "rows": self._series.rows(int(wall) - 4)})

    def _ticked(self, wall: float, current: Sequence[Flow]) -> dict[str, Any]:
        services = {
            f"{caller}>{callee}": _total(found)
            for (caller, callee), found in flows.between_services(current).items()
        }
        replicas = {
            f"{service}/{name}": _total(found)
            for (service, name), found in flows.to_replicas(current).items()
        }
        single = [
            [*each.caller, *each.callee, round(each.rate, 3)]
            for each in (current if len(current) <= SINGLE_FLOWS else ())
        ]
        return {
            "at": wall,
            "edges": services,
            "replicas": replicas,
            "flows": single,
            "zookeeper": {
                "session": self._state(),
                "quorum": zookeeper.quorum(self._members) if self._hosts is not None else "",
                "members": [asdict(each) for each in self._members],
            },
            "jobs": self._job_changes,
        }

    def _fleet(self) -> list[dict[str, Any]]:
        return [sight_json(each) for each in self._sights.values()]

    def _whole(self) -> list[bytes]:
        history = {
            "columns": COLUMNS,
            "rows": self._series.rows(),
            "markers": [asdict(each) for each in self._markers],
        }
        parts = [event("fleet", self._fleet()), event("history", history)]
        if self._tick:
            parts.append(event("tick", {**self._tick, "rows": []}))
        return parts

    async def _ask_zookeeper(self, hosts: str) -> None:
        while True:
            members = await zookeeper.ask_all(hosts, self._directory.tls)
            before, self._members = self._members, members
            if before:
                for marker in _turned(before, members, self._wall()):
                    self._add([marker])
            await asyncio.sleep(ZOOKEEPER_EVERY)


def sight_json(sight: Sight) -> dict[str, Any]:
    """A replica for the page."""
    replica = sight.replica
    return {
        "service": sight.service,
        "id": replica.id,
        "host": replica.host,
        "zone": replica.zone,
        "version": replica.version,
        "flavor": replica.flavor,
        "target": replica.target,
        "since": replica.registered_at,
        "state": str(sight.state),
        "why": sight.why,
        "ejected_by": list(sight.ejected_by),
    }


def _total(found: flows.Total) -> list[float | None]:
    latency = None if found.latency is None else round(found.latency, 6)
    return [round(found.rate, 3), round(found.failures, 3), latency, found.in_flight]


def _turned(
    before: Sequence[zookeeper.Member], after: Sequence[zookeeper.Member], at: float
) -> list[Marker]:
    """What changed in the ensemble."""
    was = {each.address: each for each in before}
    found = []
    for now in after:
        old = was.get(now.address)
        if old is None or old.mode == now.mode:
            continue
        said = f"is {now.mode}" if now.mode else now.problem
        found.append(Marker(at, "zookeeper", f"ZooKeeper {now.address} {said}"))
    return found
