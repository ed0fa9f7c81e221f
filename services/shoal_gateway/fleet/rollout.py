"""The next step of an upgrade. Pure: a view of the replicas in, one step out.

Going forward and going back are one algorithm with the sides changed, so that a rollback keeps to
the same limits as the upgrade it undoes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Health(enum.StrEnum):
    """How a replica stands."""

    # Not running, and not meant to.
    ABSENT = "absent"
    # Running, and not proven: it has not been healthy for long enough, or is not healthy just now.
    STARTING = "starting"
    HEALTHY = "healthy"
    # Dead, or unproven for too long.
    FAILED = "failed"


class Outcome(enum.StrEnum):
    """How an upgrade ends."""

    DONE = "done"
    ROLLED_BACK = "rolled back"
    # Stopped on request between two replicas; both versions serve.
    PAUSED = "paused"
    # A replica of the version that was there before does not come back.
    STUCK = "stuck"
    # A replica that was of the version already is not healthy.
    UNHEALTHY = "not healthy"


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the service that a replica of the old version has and one of the new takes.

    Attributes:
        old: Id of the replica that was there.
        new: Id of its successor; the same when it is replaced in place.
        was: How the old one stands.
        now: How the new one stands.
    """

    old: str
    new: str
    was: Health
    now: Health

    @property
    def served(self) -> bool:
        """Whether one of the two takes calls."""
        return Health.HEALTHY in (self.was, self.now)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to go about it.

    Attributes:
        surge: Whether the new replica starts before the old one ends; else in its place.
        unavailable: Most slots that may be unserved on our account; when surging, most that are
            replaced at once.
        canary: Slots that are upgraded first and watched before the rest; 0: no canary.

    Raises:
        ValueError: nothing could ever be stopped or started so.
    """

    surge: bool
    unavailable: int = 1
    canary: int = 0

    def __post_init__(self) -> None:
        if self.unavailable < 1 or self.canary < 0:
            raise ValueError(f"{self} lets nothing happen: unavailable must be at least 1")


@dataclass(frozen=True, slots=True)
class View:
    """All that a step depends on.

    Attributes:
        slots: Every slot of the service, in the order in which they are replaced.
        back: Whether the upgrade is being undone.
        watched: Whether the canaries were watched for long enough.
        stopping: Whether no further slot is to be begun.
    """

    slots: tuple[Slot, ...]
    back: bool = False
    watched: bool = False
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Start a slot's replica: its new one, or (``new`` false) its old one again."""

    slot: int
    new: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain and end a slot's replica."""

    slot: int
    new: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after a while."""

    reason: str


@dataclass(frozen=True, slots=True)
class TurnBack:
    """The new replica of a slot has failed: undo everything.

    Old replicas that have FAILED meanwhile are to be ended first, so that they are ABSENT: they are
    started again like those that were replaced.
    """

    slot: int


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more is to be done."""

    outcome: Outcome


Step = Start | Stop | Wait | TurnBack | End


def decide(plan: Plan, view: View) -> Step:
    """The next step."""
    if not view.back:
        for index, slot in enumerate(view.slots):
            if slot.now is Health.FAILED:
                return TurnBack(index)
    elif any(slot.was is Health.FAILED for slot in view.slots):
        # It was started again and has failed; ending more of what works would make it worse.
        return End(Outcome.STUCK)
    # Where fewer are left than were to be watched, as after a stop, those are watched.
    canaries = min(plan.canary, len(view.slots))
    watching = not view.back and not view.watched and _started(view) >= canaries > 0
    may_begin = view.back or not (view.stopping or watching)
    step = _roll(plan, view, may_begin=may_begin)
    if step is not None:
        return step
    if view.back:
        return End(Outcome.ROLLED_BACK)
    if watching and not view.stopping:
        return Wait("watching the canaries")
    finished = all(slot.now is Health.HEALTHY and slot.was is Health.ABSENT for slot in view.slots)
    return End(Outcome.DONE if finished else Outcome.PAUSED)


def _started(view: View) -> int:
    return sum(slot.now is not Health.ABSENT for slot in view.slots)


def _roll(plan: Plan, view: View, *, may_begin: bool) -> Step | None:
    """One step from the side that is left to the side that is wanted; None: nothing to do."""
    wanted = not view.back  # whether the new side is
    # Leaving, coming.
    sides = [(slot.was, slot.now) if wanted else (slot.now, slot.was) for slot in view.slots]
    for index, (leaving, coming) in enumerate(sides):
        if coming is Health.HEALTHY and leaving is not Health.ABSENT:
            return Stop(index, not wanted)
        if coming is Health.ABSENT and leaving is Health.ABSENT:
            return Start(index, wanted)
    begun = sum(coming is Health.STARTING for _, coming in sides)
    if not may_begin or begun >= plan.unavailable:
        return Wait("for replicas to prove healthy") if begun else None
    # What serves nobody goes first: to replace it costs nothing. So when the turn of one that
    # serves has come, none but those that were begun are unserved, which are fewer than k.
    left = [index for index, (_, coming) in enumerate(sides) if coming is Health.ABSENT]
    left.sort(key=lambda index: sides[index][0] is Health.HEALTHY)
    if left:
        return Start(left[0], wanted) if plan.surge else Stop(left[0], not wanted)
    return Wait("for replicas to prove healthy") if begun else None
