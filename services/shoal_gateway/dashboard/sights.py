"""What is seen of a replica: what it says, whether it answers, and what its callers think. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal_balancer import Replica, Status

# A service and the replica's id in it.
Key = tuple[str, str]

# Seconds that a replica is shown after it has left.
REMEMBERED = 60.0


class State(enum.StrEnum):
    """How a replica is, the worst that is known first."""

    # It has left the directory, or its port is closed while the directory still lists it.
    GONE = "GONE"
    # Its port is open, and it does not answer in time.
    SILENT = "SILENT"
    DRAINING = "DRAINING"
    # At least one of its callers sends it nothing for now.
    EJECTED = "EJECTED"
    BUSY = "BUSY"
    UP = "UP"


class Reach(enum.Enum):
    """What came of asking a replica."""

    UNASKED = "was not asked yet"
    ANSWERS = "answers"
    REFUSED = "its connection is closed"
    SILENT = "does not answer"


@dataclass(frozen=True, slots=True)
class Sight:
    """A replica at one moment.

    Attributes:
        service: Its service.
        replica: What the directory says, or said last.
        state: How it is.
        why: The reason, for a person; empty where there is nothing to say.
        ejected_by: Callers that send it nothing for now, as ``service/id``.
    """

    service: str
    replica: Replica
    state: State
    why: str = ""
    ejected_by: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Which replica it is."""
        return (self.service, self.replica.id)


@dataclass(frozen=True, slots=True)
class Left:
    """A replica that the directory lists no more.

    Attributes:
        replica: What it was.
        at: When that was seen, monotonic seconds.
        drained: Whether it had said before that it would leave.
    """

    replica: Replica
    at: float
    drained: bool


def judge(service: str, replica: Replica, reach: Reach, ejected_by: Sequence[str] = ()) -> Sight:
    """How a listed replica is."""
    ejectors = tuple(ejected_by)
    if reach is Reach.REFUSED:
        why = "its connection is closed; the directory lists it until its session ends"
        return Sight(service, replica, State.GONE, why, ejectors)
    if replica.status is Status.DRAINING:
        return Sight(service, replica, State.DRAINING, "it is leaving", ejectors)
    if reach is Reach.SILENT:
        return Sight(service, replica, State.SILENT, "it does not answer", ejectors)
    if not replica.enabled:
        return Sight(service, replica, State.DRAINING, "it was taken out of rotation", ejectors)
    if ejectors:
        why = f"no calls from {', '.join(ejectors)}"
        return Sight(service, replica, State.EJECTED, why, ejectors)
    if replica.status is Status.BUSY:
        return Sight(service, replica, State.BUSY, "it says so itself")
    return Sight(service, replica, State.UP)


def gone(service: str, left: Left) -> Sight:
    """A replica that the directory lists no more."""
    why = "it has left in order" if left.drained else "it vanished from the directory"
    return Sight(service, left.replica, State.GONE, why)


class Roll:
    """Who is listed, and who was until lately. One thread tells it.

    Args:
        remembered: Seconds that those who left are kept.
    """

    def __init__(self, remembered: float = REMEMBERED) -> None:
        self._remembered = remembered
        self._listed: dict[str, tuple[Replica, ...]] = {}
        self._left: dict[Key, Left] = {}

    def update(self, service: str, replicas: tuple[Replica, ...], now: float) -> None:
        """A new set of a service."""
        present = {each.id for each in replicas}
        for each in self._listed.get(service, ()):
            if each.id not in present:
                drained = each.status is Status.DRAINING
                self._left[service, each.id] = Left(each, now, drained)
        for name in present:
            self._left.pop((service, name), None)
        self._listed[service] = replicas

    def sights(
        self,
        reach: Mapping[Key, Reach],
        ejected_by: Mapping[Key, Sequence[str]],
        now: float,
    ) -> tuple[Sight, ...]:
        """Everybody, sorted by service and id."""
        for key in [key for key, left in self._left.items() if now - left.at > self._remembered]:
            del self._left[key]
        found = [gone(service, left) for (service, _), left in self._left.items()]
        for service, replicas in self._listed.items():
            for each in replicas:
                key = (service, each.id)
                asked = reach.get(key, Reach.UNASKED)
                found.append(judge(service, each, asked, ejected_by.get(key, ())))
        return tuple(sorted(found, key=lambda sight: sight.key))


@dataclass(frozen=True, slots=True)
class Marker:
    """Something that happened, for charts and the list below them.

    Attributes:
        at: Seconds since 1970.
        kind: "fault", "upgrade", "leave", "join" or "zookeeper".
        text: For a person.
    """

    at: float
    kind: str
    text: str


def happened(before: Mapping[Key, Sight], after: Mapping[Key, Sight], at: float) -> list[Marker]:
    """What happened between two looks.

    Args:
        before: The earlier look.
        after: The later one.
        at: Its time, seconds since 1970.
    """
    found: list[Marker] = []
    for key, now in after.items():
        name = key[1]
        was = before.get(key)
        if was is None or (was.state is State.GONE and now.state is not State.GONE):
            if now.state is not State.GONE:
                found.append(_arrived(was, now, before, at))
        elif was.replica.version != now.replica.version:
            found.append(_upgraded(name, was, now, at))
        elif was.state is not now.state:
            marker = _changed(name, was, now, at)
            if marker is not None:
                found.append(marker)
    return found


def _arrived(was: Sight | None, now: Sight, before: Mapping[Key, Sight], at: float) -> Marker:
    name, version = now.replica.id, now.replica.version
    if was is not None and was.replica.version != now.replica.version:
        return _upgraded(name, was, now, at)
    kin = [
        each.replica.version
        for each in before.values()
        if each.service == now.service and each.replica.flavor == now.replica.flavor
    ]
    # A successor has a name of its own: what it replaces is of another version.
    if was is None and any(each != version for each in kin):
        return Marker(at, "upgrade", f"{name} is there with version {version or '?'}")
    return Marker(at, "join", f"{name} is there")


def _upgraded(name: str, was: Sight, now: Sight, at: float) -> Marker:
    change = f"{was.replica.version or '?'} → {now.replica.version or '?'}"
    return Marker(at, "upgrade", f"{name}: version {change}")


def _changed(name: str, was: Sight, now: Sight, at: float) -> Marker | None:
    if now.state is State.GONE:
        if was.state is State.DRAINING:
            return Marker(at, "leave", f"{name} has left in order")
        return Marker(at, "fault", f"{name} is gone: {now.why}")
    if now.state is State.SILENT:
        return Marker(at, "fault", f"{name} does not answer")
    if now.state is State.EJECTED:
        return Marker(at, "fault", f"{name} is ejected: {now.why}")
    if now.state is State.DRAINING:
        return Marker(at, "leave", f"{name} drains")
    return None
