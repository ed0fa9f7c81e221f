"""Carries an upgrade out, replica by replica, as `rollout.decide` says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from shoal.directory import Directory
from shoal_gateway.fleet.errors import FleetError
from shoal_gateway.fleet.fleet import Fleet
from shoal_gateway.fleet.gate import Look, Patience, Track, look
from shoal_gateway.fleet.releases import Release
from shoal_gateway.fleet.rollout import (
    End,
    Health,
    Outcome,
    Plan,
    Slot,
    Start,
    Stop,
    TurnBack,
    View,
    Wait,
    decide,
)
from shoal_gateway.fleet.state import ReplicaState

logger = logging.getLogger(__name__)

# Seconds between two looks at replicas that must prove healthy, and at those that have.
LOOK, LOOK_AGAIN = 0.2, 1.0
# Seconds for the replicas to be read out of the directory at the begin.
KNOWN = 15.0

# Told what is done: a sentence, slots done, slots in all.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What an upgrade is to do.

    Attributes:
        service: Of which service.
        version: To which release.
        plan: How.
        patience: With new replicas.
        watch: Seconds that canaries are watched.
        drain: Seconds that a replica may take to end before it is killed.
    """

    service: str
    version: str
    plan: Plan
    patience: Patience
    watch: float = 10.0
    drain: float = 60.0


@dataclass(slots=True)
class _Place:
    """A slot with its replicas; `old` and `new` are the same replica when it is done in place."""

    old: ReplicaState
    new: ReplicaState
    # How each stands; None: absent.
    was: Track | None = None
    now: Track | None = None
    looked: float = field(default=0.0)

    def slot(self) -> Slot:
        return Slot(self.old.id, self.new.id, _health(self.was), _health(self.now))


@dataclass(frozen=True, slots=True)
class Result:
    """How an upgrade ended.

    Attributes:
        outcome: In a word.
        version: Where it went.
        upgraded: Ids of the service's replicas of that version, those of an earlier upgrade too.
        kept: Ids of the others.
        failure: Which replica did not pass which gate, and where its log is; empty: none.
    """

    outcome: Outcome
    version: str
    upgraded: tuple[str, ...]
    kept: tuple[str, ...]
    failure: str = ""


class Upgrade:
    """One upgrade of one service. The caller holds the lock.

    Args:
        fleet: Whose.
        directory: Of the fleet.
        wish: What is to be done.
        tell: Told of each step.
        clock: Monotonic seconds.

    Raises:
        FleetError: there is no such service or release.
    """

    def __init__(
        self,
        fleet: Fleet,
        directory: Directory,
        wish: Wish,
        *,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._directory = directory
        self._wish = wish
        self._tell = tell
        self._clock = clock
        self._stopping = threading.Event()
        self._release = fleet.layout.releases.find(wish.version)
        self._back = False
        self._watched = False
        self._watched_since: float | None = None
        self._failure = ""
        self._places = places(fleet, wish, self._release)
        # Of the version already, by this upgrade before it was cut off or by another one.
        self._before = upgraded(fleet, wish, self._release)

    def stop(self) -> None:
        """Begins no further replica; `run` ends when what is begun is whole. For other threads."""
        self._stopping.set()

    def run(self) -> Result:
        """Does it all.

        Raises:
            FleetError: the fleet has gone meanwhile.
            TimeoutError: a process outlived SIGKILL.
        """
        self._directory.watch(self._wish.service).wait_known(KNOWN)
        # First of all: where the version fails, nothing more is to be made of it.
        if (unproven := self._prove(self._wish.patience)) is not None:
            return self._result(unproven)
        self._adopt()
        while True:
            self._look()
            match decide(self._wish.plan, self._view()):
                case Start(index, new):
                    self._start(self._places[index], new=new)
                case Stop(index, new):
                    self._stop(self._places[index], new=new)
                case TurnBack(index):
                    self._turn_back(self._places[index])
                case Wait(reason):
                    logger.debug("waiting %s", reason)
                    # Nothing tells of a replica's health: it is asked.
                    time.sleep(LOOK)
                case End(outcome):
                    if outcome is Outcome.DONE:
                        known = Patience(0.0, self._wish.patience.deadline)
                        outcome = self._prove(known) or outcome
                    return self._result(outcome)

    def _prove(self, patience: Patience) -> Outcome | None:
        """Puts what is of the version already to the gate; None: all of it is healthy."""
        tracks = [Track(patience, self._clock()) for _ in self._before]
        while True:
            for index, replica in enumerate(self._before):
                found = look(self._directory, replica, self._release.version)
                tracks[index] = tracks[index].seen(found, self._clock())
                if tracks[index].health is Health.FAILED:
                    self._failure = self._failed(replica, tracks[index])
                    return Outcome.UNHEALTHY
            if all(track.health is Health.HEALTHY for track in tracks):
                return None
            if self._stopping.is_set():
                return Outcome.PAUSED
            time.sleep(LOOK)  # as in `run`

    def _failed(self, replica: ReplicaState, track: Track | None) -> str:
        fault = track.fault if track is not None else ""
        return (
            f"{replica.id}, version {self._release.version}, failed the gate {fault}; its log: "
            f"{self._fleet.layout.log(replica)}"
        )

    def _adopt(self) -> None:
        """What runs already of the old version needs no proof: it is looked at once, and counts.

        What runs of the new one was begun by an upgrade that was cut off, maybe a moment ago.
        """
        now = self._clock()
        known = Patience(0.0, self._wish.patience.deadline)
        for place in self._places:
            for new in (False, True):
                replica = self._fleet.state.replicas.get((place.new if new else place.old).id)
                if replica is None or replica.process is None:
                    continue
                if (replica.version == self._release.recorded) is new:
                    patience = self._wish.patience if new else known
                    _put(place, replica, Track(patience, now), new=new)

    def _look(self) -> None:
        """Looks at everything that is there; at what is healthy less often."""
        now = self._clock()
        for place in self._places:
            settled = place.slot().served and Health.STARTING not in (
                _health(place.was), _health(place.now),
            )  # fmt: skip
            if settled and now - place.looked < LOOK_AGAIN:
                continue
            place.looked = now
            if place.was is not None:
                version = self._fleet.layout.releases.find(place.old.version).version
                place.was = place.was.seen(look(self._directory, place.old, version), self._clock())
            if place.now is not None:
                found = look(self._directory, place.new, self._release.version)
                place.now = place.now.seen(found, self._clock())

    def _view(self) -> View:
        slots = tuple(place.slot() for place in self._places)
        if not self._watched and self._wish.plan.canary and not self._back:
            self._watch_canaries(slots)
        return View(slots, back=self._back, watched=self._watched, stopping=self._stopping.is_set())

    def _watch_canaries(self, slots: Sequence[Slot]) -> None:
        """Their time counts from when they took their predecessors' places, all in one go."""
        begun = [slot for slot in slots if slot.now is not Health.ABSENT]
        whole = all((slot.was, slot.now) == (Health.ABSENT, Health.HEALTHY) for slot in begun)
        if not whole or len(begun) < min(self._wish.plan.canary, len(slots)):
            self._watched_since = None
        elif self._watched_since is None:
            self._watched_since = self._clock()
            names = ", ".join(slot.new for slot in begun)
            self._say(f"watching {names} for {self._wish.watch:g} s before the rest follows")
        elif self._clock() - self._watched_since >= self._wish.watch:
            self._watched = True

    def _start(self, place: _Place, *, new: bool) -> None:
        replica = place.new if new else place.old
        self._say(f"starting {replica.id}, version {self._named(replica)}")
        track = Track(self._wish.patience, self._clock())
        try:
            replica = self._fleet.run(replica)
        except FleetError as error:
            # No way to run it is one more way of being broken.
            track = track.seen(Look(f"start: {error}", dead=True), self._clock())
        _put(place, replica, track, new=new)

    def _stop(self, place: _Place, *, new: bool) -> None:
        replica = place.new if new else place.old
        self._say(f"draining {replica.id}, version {self._named(replica)}")
        if replica.id in self._fleet.state.replicas:
            self._fleet.stop(replica.id, self._wish.drain)
            if place.old.id != place.new.id:
                # In place it is still the same replica, which is started again next.
                self._fleet.forget(replica.id)
        if new:
            place.now = None
        else:
            place.was = None

    def _turn_back(self, place: _Place) -> None:
        fault = place.now.fault if place.now is not None else ""
        self._failure = self._failed(place.new, place.now)
        logger.warning("rolling back: %s", self._failure)
        self._say(f"rolling back, for {place.new.id} failed the gate {fault}")
        self._back = True
        for each in self._places:
            if _health(each.was) is Health.FAILED:
                self._fleet.stop(each.old.id, self._wish.drain)
                each.was = None

    def _result(self, outcome: Outcome) -> Result:
        replicas = self._fleet.state.replicas.values()
        mine = [each for each in replicas if each.service == self._wish.service]
        failure = self._failure
        if outcome is Outcome.STUCK:
            bad = next(place for place in self._places if _health(place.was) is Health.FAILED)
            fault = bad.was.fault if bad.was is not None else ""
            failure += (
                f"\nand {bad.old.id}, version {self._named(bad.old)}, did not come back: {fault}; "
                f"its log: {self._fleet.layout.log(bad.old)}"
            )
        return Result(
            outcome,
            self._release.version,
            tuple(each.id for each in mine if each.version == self._release.recorded),
            tuple(each.id for each in mine if each.version != self._release.recorded),
            failure,
        )

    def _named(self, replica: ReplicaState) -> str:
        return self._fleet.layout.releases.find(replica.version).version

    def _say(self, what: str) -> None:
        done = sum(_health(place.now) is Health.HEALTHY for place in self._places)
        logger.info("%s: %s", self._wish.service, what)
        self._tell(what, done, len(self._places))


def places(fleet: Fleet, wish: Wish, release: Release) -> list[_Place]:
    """The slots of a service, the replicas of an interrupted upgrade paired again.

    Raises:
        FleetError: there is no such service.
    """
    state = fleet.state
    mine = [each for each in state.replicas.values() if each.service == wish.service]
    if not mine:
        known = ", ".join(sorted({each.service for each in state.replicas.values()}))
        raise FleetError(f"there is no service '{wish.service}'; there are {known}")
    slots: dict[str, list[ReplicaState]] = {}
    for each in mine:
        slots.setdefault(each.id.partition(".")[0], []).append(each)
    found = []
    for base, replicas in sorted(slots.items()):
        old = next((each for each in replicas if each.version != release.recorded), None)
        new = next((each for each in replicas if each.version == release.recorded), None)
        if old is None:
            continue  # see `upgraded`; this upgrade won't undo it
        if new is None:
            name = successor(base, replicas) if wish.plan.surge else old.id
            new = replace(old, id=name, version=release.recorded, process=None)
        found.append(_Place(old, new))
    return found


def upgraded(fleet: Fleet, wish: Wish, release: Release) -> list[ReplicaState]:
    """Replicas of the version whose predecessors are gone; `places` are the others."""
    open_slots = {each.new.id for each in places(fleet, wish, release)}
    return [
        each
        for each in fleet.state.replicas.values()
        if each.service == wish.service
        and each.version == release.recorded
        and each.id not in open_slots
    ]


def successor(base: str, replicas: list[ReplicaState]) -> str:
    """The id of a slot's next replica: ``registry-1``, ``registry-1.2``, ``registry-1.3``."""
    generations = [int(each.id.partition(".")[2] or 1) for each in replicas]
    return f"{base}.{max(generations) + 1}"


def _put(place: _Place, replica: ReplicaState, track: Track, *, new: bool) -> None:
    if new:
        place.new, place.now = replica, track
    else:
        place.old, place.was = replica, track


def _health(track: Track | None) -> Health:
    return Health.ABSENT if track is None else track.health
