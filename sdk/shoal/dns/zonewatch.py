"""A zone's view, kept from a directory: which services there are, and each one's replicas."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from shoal.directory import Directory
from shoal.dns.view import Service, View, Zone, build
from shoal.servicewatch import ServiceWatch
from shoal.treewatch import TreeWatch

logger = logging.getLogger(__name__)

# A view is made anew when something has changed, and after so many seconds for its ages.
REFRESH = 1.0


class ZoneWatch:
    """Makes views of all services of a directory; one thread asks for them.

    While ZooKeeper is away, what was known last holds. At a start without it, the services and
    replicas of the snapshots on this machine's disk are named; other names can't be judged then.

    Args:
        directory: Whose services.
        zone: Their zone.
        clock: Monotonic seconds.
        wall: Seconds since 1970, for the zone's serial.

    Raises:
        DirectoryClosedError: the directory was closed.
    """

    def __init__(
        self,
        directory: Directory,
        zone: Zone,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.zone = zone
        self._directory = directory
        self._clock = clock
        self._wall = wall
        self._watches: dict[str, ServiceWatch] = {}
        self._unsubscribe: list[Callable[[], None]] = []
        self._changed = True
        self._stopped = False
        self._made_at = float("-inf")
        self._view = View(zone)
        self._tree = TreeWatch(directory, directory.services_below)
        self._unsubscribe.append(self._tree.subscribe(self._note))

    def view(self) -> View:
        """The zone as it is known now. Costs nothing while nothing changes."""
        now = self._clock()
        # The mark goes first: a change that comes while the view is made, makes another.
        if (self._changed or now - self._made_at > REFRESH) and not self._stopped:
            self._changed = False
            self._made_at = now
            self._view = self._made()
        return self._view

    def close(self) -> None:
        """Watches no more; the last view stays. The directory stays open."""
        self._stopped = True
        self._tree.stop()
        for unsubscribe in self._unsubscribe:
            unsubscribe()

    def _note(self, _news: Any) -> None:
        self._changed = True

    def _made(self) -> View:
        listed = set(self._tree.tree)
        complete = self._tree.known
        if not complete:
            listed |= self._directory.remembered()
        for name in listed.difference(self._watches):
            watch = self._watches[name] = self._directory.watch(name)
            self._unsubscribe.append(watch.subscribe(self._note))
        # Held: gone from ZooKeeper without a word, which is an outage's doing as likely as not.
        services = [
            Service(name, watch.replicas() if watch.known else None, watch.age, watch.held)
            for name, watch in self._watches.items()
            if name in listed or watch.held
        ]
        before = self._view
        made = build(
            self.zone,
            services,
            serial=before.serial,
            complete=complete,
            zookeeper=self._directory.describe(),
        )
        if made.nodes == before.nodes and made.complete == before.complete:
            return made
        for each in set(made.left_out).difference(before.left_out):
            logger.warning("a service has no name in DNS: %s", each)
        return replace(made, serial=max(before.serial + 1, int(self._wall())) % 2**32)
