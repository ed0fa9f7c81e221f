"""The plan of an upgrade: never more than k away, always an end, and a rollback to the start."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

ABSENT, STARTING, HEALTHY, FAILED = Health


def old_only(count, *, surge):
    return tuple(
        Slot(f"a-{number}", f"a-{number}{'.2' * surge}", HEALTHY, ABSENT) for number in range(count)
    )


class Service:
    """Replicas whose fates a list of choices decides."""

    def __init__(self, plan, count, fates):
        self.plan = plan
        self.view = View(old_only(count, surge=plan.surge))
        self.fates = fates
        self.steps = []

    def set(self, index, **sides):
        slots = list(self.view.slots)
        slots[index] = replace(slots[index], **sides)
        self.view = replace(self.view, slots=tuple(slots))

    def unserved(self):
        return sum(not slot.served for slot in self.view.slots)

    def do(self, step):
        """Carries a step out; what is waited for then happens."""
        before = self.unserved()
        match step:
            case Start(index, new):
                slot = self.view.slots[index]
                assert (slot.now if new else slot.was) is ABSENT
                if not self.plan.surge:
                    assert (slot.was if new else slot.now) is ABSENT, "two in one place"
                self.set(index, **{"now" if new else "was": STARTING})
            case Stop(index, new):
                slot = self.view.slots[index]
                assert (slot.now if new else slot.was) is not ABSENT
                self.set(index, **{"now" if new else "was": ABSENT})
                assert self.unserved() <= max(self.plan.unavailable, before)
            case TurnBack():
                self.view = replace(self.view, back=True)
                for index, slot in enumerate(self.view.slots):
                    if slot.was is FAILED:
                        self.set(index, was=ABSENT)
            case Wait():
                self.wait()
        self.steps.append(step)

    def wait(self):
        for index, slot in enumerate(self.view.slots):
            for side in ("was", "now"):
                if getattr(slot, side) is STARTING:
                    self.set(index, **{side: self.fates(side)})
        begun = [slot.now for slot in self.view.slots if slot.now is not ABSENT]
        if begun and all(health is HEALTHY for health in begun):
            self.view = replace(self.view, watched=True)

    def run(self, *, meddle=lambda service: None):
        for _ in range(400):
            step = decide(self.plan, self.view)
            if isinstance(step, End):
                return step.outcome
            self.do(step)
            meddle(self)
        raise AssertionError(f"no end: {self.steps[-10:]}")


plans = st.builds(Plan, surge=st.booleans(), unavailable=st.integers(1, 4),
                  canary=st.integers(0, 3))  # fmt: skip
counts = st.integers(1, 6)


@given(plans, counts)
def test_when_all_goes_well_every_replica_is_new_in_the_end(plan, count):
    service = Service(plan, count, lambda side: HEALTHY)

    assert service.run() is Outcome.DONE
    assert all((slot.was, slot.now) == (ABSENT, HEALTHY) for slot in service.view.slots)
    assert len([step for step in service.steps if isinstance(step, Start)]) == count
    if plan.surge:
        # Nobody was ever missed.
        first = service.steps.index(next(step for step in service.steps if isinstance(step, Stop)))
        assert any(isinstance(step, Start) for step in service.steps[:first])


@given(plans, counts, st.data())
def test_when_one_new_replica_fails_all_is_as_it_was(plan, count, data):
    fails_at = data.draw(st.integers(1, count))
    seen = []

    def fate(side):
        seen.append(side)
        return FAILED if side == "now" and seen.count("now") == fails_at else HEALTHY

    service = Service(plan, count, fate)

    assert service.run() is Outcome.ROLLED_BACK
    assert service.view.slots == old_only(count, surge=plan.surge)
    assert service.unserved() == 0


@given(plans, counts, st.data())
def test_whatever_happens_it_ends_and_takes_no_more_than_k_away(plan, count, data):
    """Replicas die and stop being healthy for a while, on both sides, whenever they like."""

    def fate(side):
        return data.draw(st.sampled_from([HEALTHY, HEALTHY, HEALTHY, STARTING, FAILED]), "fate")

    left = data.draw(st.integers(0, 6), "trouble")

    def meddle(service):
        nonlocal left
        if left and data.draw(st.booleans(), "now?"):
            left -= 1
            index = data.draw(st.integers(0, count - 1), "whom")
            side = data.draw(st.sampled_from(["was", "now"]), "side")
            if getattr(service.view.slots[index], side) is HEALTHY:
                service.set(index, **{side: data.draw(st.sampled_from([STARTING, FAILED]))})

    service = Service(plan, count, fate)
    outcome = service.run(meddle=meddle)

    if outcome is Outcome.DONE:
        assert all((slot.was, slot.now) == (ABSENT, HEALTHY) for slot in service.view.slots)
    elif outcome is Outcome.ROLLED_BACK:
        assert all((slot.was, slot.now) == (HEALTHY, ABSENT) for slot in service.view.slots)
    else:
        assert outcome is Outcome.STUCK
        assert any(slot.was is FAILED for slot in service.view.slots)


@given(plans, counts, st.integers(0, 30))
def test_a_stop_leaves_every_slot_with_one_replica_and_the_rest_can_follow(plan, count, at):
    service = Service(plan, count, lambda side: HEALTHY)

    def stop(service):
        if len(service.steps) == at:
            service.view = replace(service.view, stopping=True)

    outcome = service.run(meddle=stop)

    assert outcome in (Outcome.PAUSED, Outcome.DONE)
    assert all({slot.was, slot.now} == {ABSENT, HEALTHY} for slot in service.view.slots)
    service.view = replace(service.view, stopping=False)
    assert service.run() is Outcome.DONE


@given(plans.filter(lambda plan: plan.canary > 0), counts)
def test_until_the_canaries_were_watched_nobody_else_is_touched(plan, count):
    service = Service(plan, count, lambda side: HEALTHY)
    while not service.view.watched:
        service.do(decide(plan, service.view))
        assert sum(slot.was is ABSENT or slot.now is not ABSENT for slot in service.view.slots) <= (
            max(plan.canary, 0)
        )
    assert service.run() is Outcome.DONE


@given(plans, counts)
def test_no_upgrade_with_a_canary_is_done_unwatched(plan, count):
    service = Service(plan, count, lambda side: HEALTHY)
    assert service.run() is Outcome.DONE
    assert service.view.watched or plan.canary == 0


def test_replicas_that_lose_zookeeper_together_are_not_replaced_together():
    slots = tuple(replace(slot, was=STARTING) for slot in old_only(3, surge=False))
    plan = Plan(surge=False, unavailable=1)

    first = decide(plan, View(slots))
    assert first == Stop(0, new=False)
    slots = (replace(slots[0], was=ABSENT, now=STARTING), *slots[1:])
    assert isinstance(decide(plan, View(slots)), Wait)


def test_a_plan_that_lets_nothing_happen_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Plan(surge=False, unavailable=0)
