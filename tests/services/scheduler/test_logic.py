"""The dispatcher with a queue and managers that do as they are told."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest

from shoal.retry import changeable
from shoal_gateway.scheduler.logic import (
    Dispatcher,
    NobodyTookError,
    QueueAwayError,
    chunks,
    settled,
)
from shoal_gateway.scheduler.pace import MAX_BACKOFF, MAX_BATCH, MIN_BACKOFF, Pace
from shoal_gateway.scheduler.ports import FleetManagers, RegistryQueue
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

Verdict = appmanager_pb2.StartResponse
DEADLINE = 30.0


def offer(number: int) -> registry_pb2.Offer:
    return registry_pb2.Offer(job_id=f"job-{number}", fence=1, attempt=1)


def item(offered, verdict, reason=""):
    return Verdict.Item(job_id=offered.job_id, verdict=verdict, reason=reason)


class FakeQueue:
    def __init__(self, jobs=0, flavor="local"):
        self.waiting = {flavor: [offer(number) for number in range(jobs)]}
        self.asked = []
        self.released = []
        self.reasons = []
        self.behind = []
        self.away = False
        self.idle = asyncio.Event()

    async def lease(self, flavor, limit):
        self.asked.append((flavor, limit))
        if self.away:
            raise QueueAwayError("UNAVAILABLE: nobody there")
        waiting = self.waiting.setdefault(flavor, [])
        found, waiting[:] = waiting[:limit], waiting[limit:]
        if not found:
            self.idle.set()
        return found

    async def release(self, offers, reason, *, keep_place):
        if self.away:
            raise QueueAwayError("UNAVAILABLE: nobody there")
        self.released += offers
        if not keep_place:
            self.behind += [each.job_id for each in offers]
        self.reasons.append(reason)


class FakeManagers:
    """Managers with some room together."""

    def __init__(self, room=1000, **flavors):
        self.served = flavors or {"local": 3}
        self.room = room
        self.started = []
        self.calls = 0
        self.hold = None
        self.entered = asyncio.Event()
        self.unable = set()
        self.fail = None
        self.full = False

    def flavors(self):
        return dict(self.served)

    async def start(self, flavor, offers):
        self.calls += 1
        self.entered.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.fail is not None:
            raise NobodyTookError(self.fail, full=self.full)
        items = []
        for each in offers:
            if each.job_id in self.unable:
                items.append(item(each, Verdict.VERDICT_UNABLE, "its disk is full"))
            elif self.room > 0:
                self.room -= 1
                self.started.append(each.job_id)
                items.append(item(each, Verdict.VERDICT_STARTED))
            else:
                items.append(item(each, Verdict.VERDICT_FULL))
        return items


class Running:
    """A dispatcher that runs within a block."""

    def __init__(self, queue, managers, poll=0.05):
        self.dispatcher = Dispatcher(queue, managers, poll=poll, rng=random.Random(1))

    async def __aenter__(self):
        self.task = asyncio.create_task(self.dispatcher.run())
        return self.dispatcher

    async def __aexit__(self, *_):
        self.dispatcher.stop()
        await asyncio.wait_for(self.task, DEADLINE)


async def until(condition):
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - looks at plain values
            await asyncio.sleep(0.005)


async def test_everything_that_waits_is_started_once():
    queue, managers = FakeQueue(jobs=100), FakeManagers()
    async with Running(queue, managers) as dispatcher:
        await until(lambda: len(managers.started) == 100)
    assert sorted(managers.started) == sorted(f"job-{number}" for number in range(100))
    assert queue.released == []
    tally = dispatcher.tally
    assert (tally.leased, tally.started, tally.released, tally.on_offer) == (100, 100, 0, 0)


async def test_what_finds_no_room_is_given_back_with_the_reason():
    queue, managers = FakeQueue(jobs=4), FakeManagers(room=3)
    async with Running(queue, managers):
        await until(lambda: queue.released)
    assert len(managers.started) == 3
    assert len(queue.released) == 1
    assert queue.reasons == ["no slot is free"]
    assert queue.behind == []


async def test_a_full_fleet_is_not_asked_in_a_busy_loop():
    class Bottomless(FakeQueue):
        async def release(self, offers, reason, *, keep_place):
            await super().release(offers, reason, keep_place=keep_place)
            self.waiting["local"] += offers

    queue, managers = Bottomless(jobs=50), FakeManagers(room=0)
    async with Running(queue, managers) as dispatcher:
        for _ in range(20):
            # Hints keep coming, as with every submit.
            dispatcher.wake()
            await asyncio.sleep(0.05)
    # One second: with the smallest wait of 0.1 s after each, ten at most.
    assert 1 <= len(queue.asked) <= 12
    assert managers.started == []


async def test_what_one_manager_is_not_able_to_run_is_offered_again():
    queue, managers = FakeQueue(jobs=2), FakeManagers()
    managers.unable = {"job-0"}
    async with Running(queue, managers):
        await until(lambda: queue.released)
    assert managers.started == ["job-1"]
    assert [each.job_id for each in queue.released] == ["job-0"]
    assert queue.reasons == ["its disk is full"]
    assert queue.behind == ["job-0"]
    assert managers.calls >= 3


async def test_only_what_may_be_to_blame_itself_goes_behind_the_others():
    queue, managers = FakeQueue(jobs=3), FakeManagers(room=1)
    managers.unable = {"job-1"}
    async with Running(queue, managers):
        await until(lambda: len(queue.released) == 2)
    assert len(managers.started) == 1
    assert queue.behind == ["job-1"]


@pytest.mark.parametrize("full", [False, True])
async def test_what_every_manager_refused_unseen_keeps_its_place(full):
    queue, managers = FakeQueue(jobs=2), FakeManagers()
    managers.fail, managers.full = "no manager took it", full
    async with Running(queue, managers):
        await until(lambda: len(queue.released) == 2)
    assert sorted(queue.behind) == ([] if full else ["job-0", "job-1"])


async def test_managers_that_do_not_answer_cost_no_job():
    queue, managers = FakeQueue(jobs=3), FakeManagers()
    managers.fail = "no manager of flavor local took it: UNAVAILABLE: nobody there"
    async with Running(queue, managers):
        await until(lambda: queue.released)
    assert len(queue.released) == 3
    assert "UNAVAILABLE" in queue.reasons[0]


async def test_a_flavor_that_nobody_serves_stays_in_the_queue():
    queue, managers = FakeQueue(jobs=3, flavor="legacy"), FakeManagers(local=1)
    async with Running(queue, managers):
        await asyncio.wait_for(queue.idle.wait(), DEADLINE)
        assert {flavor for flavor, _ in queue.asked} == {"local"}
        managers.served = {"legacy": 1}
        await until(lambda: len(managers.started) == 3)
        queue.asked.clear()
        managers.served = {}
        await asyncio.sleep(0.3)
        # At most what was on its way when the last manager left.
        assert len(queue.asked) <= 2


async def test_a_full_flavor_does_not_hold_up_another():
    class OneFull(FakeManagers):
        async def start(self, flavor, offers):
            if flavor == "full":
                return [item(each, Verdict.VERDICT_FULL) for each in offers]
            return await super().start(flavor, offers)

    queue, managers = FakeQueue(jobs=3, flavor="full"), OneFull(full=2, local=2)
    queue.waiting["local"] = [offer(number) for number in range(100, 140)]
    async with Running(queue, managers):
        await until(lambda: len(managers.started) == 40)
        await until(lambda: len(queue.released) == 3)


async def test_a_stop_gives_back_what_was_not_placed():
    queue, managers = FakeQueue(jobs=4), FakeManagers(room=2)
    managers.hold = asyncio.Event()
    running = Running(queue, managers)
    async with running as dispatcher:
        await asyncio.wait_for(managers.entered.wait(), DEADLINE)
        dispatcher.stop()
        managers.hold.set()
    assert len(managers.started) == 2
    assert len(queue.released) == 2
    assert dispatcher.tally.on_offer == 0


async def test_a_registry_that_is_away_is_waited_for(monkeypatch, caplog):
    monkeypatch.setattr("shoal_gateway.scheduler.logic.AWAY", 0.05)
    queue, managers = FakeQueue(jobs=2), FakeManagers()
    queue.away = True
    async with Running(queue, managers):
        await until(lambda: "no jobs could be leased" in caplog.text)
        queue.away = False
        await until(lambda: len(managers.started) == 2)


async def test_a_hint_saves_the_wait_for_the_poll():
    queue, managers = FakeQueue(), FakeManagers()
    async with Running(queue, managers, poll=600.0) as dispatcher:
        await asyncio.wait_for(queue.idle.wait(), DEADLINE)
        queue.waiting["local"].append(offer(1))
        dispatcher.wake()
        await until(lambda: managers.started)


def test_verdicts_are_read_by_job_and_a_missing_one_is_not_taken():
    offers = [offer(number) for number in range(5)]
    result = settled(
        offers,
        [
            item(offers[3], Verdict.VERDICT_UNABLE, "no python"),
            item(offers[2], Verdict.VERDICT_TAKEN),
            item(offers[1], Verdict.VERDICT_FULL),
            item(offers[0], Verdict.VERDICT_STARTED),
        ],
    )
    assert (result.started, result.taken, result.reason) == (1, 1, "no python")
    assert [each.job_id for each in result.left] == ["job-1", "job-3", "job-4"]


@pytest.mark.parametrize(("offers", "managers", "sizes"), [(7, 3, [3, 2, 2]), (2, 9, [1, 1])])
def test_offers_are_spread_evenly(offers, managers, sizes):
    found = chunks([offer(number) for number in range(offers)], managers)
    assert [len(chunk) for chunk in found] == sizes
    assert len({each.job_id for chunk in found for each in chunk}) == offers


def test_the_pace_grows_with_room_and_falls_without():
    pace = Pace()
    for _ in range(10):
        pace = pace.after(pace.batch, 0)
    assert pace == Pace(MAX_BATCH, 0.0)
    pace = pace.after(5, MAX_BATCH - 5)
    assert pace == Pace(5, MIN_BACKOFF)
    for _ in range(10):
        pace = pace.after(0, pace.batch)
    assert pace == Pace(1, MAX_BACKOFF)
    assert pace.after(1, 0) == Pace(2, 0.0)


async def test_a_batch_is_bounded_anew_while_it_works():
    queue, managers = FakeQueue(jobs=40), FakeManagers()
    async with Running(queue, managers) as dispatcher:
        await until(lambda: len(managers.started) == 40)
        assert max(limit for _, limit in queue.asked) > 4
        dispatcher.max_batch = 3
        await until(lambda: queue.asked[-1][1] == 3)
        queue.asked.clear()
        queue.waiting["local"] = [offer(number) for number in range(40, 60)]
        await until(lambda: len(managers.started) == 60)
    assert {limit for _, limit in queue.asked} == {3}


async def test_another_lease_is_asked_for_from_the_next_batch_on():
    class Stub:
        def __init__(self):
            self.leases = []

        async def Lease(self, request, **_):
            self.leases.append(request.lease.ToTimedelta().total_seconds())
            return registry_pb2.LeaseResponse()

    stub = Stub()
    queue = RegistryQueue(stub, "scheduler-1", 15.0)
    await queue.lease("local", 1)
    queue.lease_seconds = 4.0
    await queue.lease("local", 1)
    assert stub.leases == [15.0, 4.0]


async def test_another_lease_is_another_patience_with_each_manager():
    class FakeDirectory:
        def watch(self, service):
            return None

        def channel(self, service, **options):
            made = grpc.aio.insecure_channel("127.0.0.1:1")
            made.retry = options["retry"]
            made.retune = lambda retry: setattr(made, "retry", changeable(made.retry, retry))
            channels.append(made)
            return made

    channels = []
    managers = FleetManagers(FakeDirectory(), 10.0)
    managers._stub("local")
    assert channels[0].retry.attempt_timeout == 2.5
    managers.take_lease(4.0)
    managers._stub("other")
    assert [each.retry.attempt_timeout for each in channels] == [1.0, 1.0]
    for each in channels:
        await each.close()
