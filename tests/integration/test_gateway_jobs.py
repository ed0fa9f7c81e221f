"""Jobs through api, registry and scheduler over real gRPC; app managers do as they are told."""

from __future__ import annotations

import asyncio
import hashlib

import grpc
import pytest

from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.store import Store
from shoal_gateway.scheduler import ports
from shoal_protos.gateway.api.v1 import api_pb2
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2
from tests.services.registry.conftest import spec
from tests.support import stack
from tests.support.managers import CONTENT, Manager, Outcome

TERMINAL = {job_pb2.STATE_SUCCEEDED, job_pb2.STATE_FAILED, job_pb2.STATE_CANCELLED}
DEADLINE = 60


@pytest.fixture
async def gateway(tmp_path):
    async with stack.running(tmp_path) as made:
        yield made


async def submit(gateway, key=None, **fields):
    answer = await gateway.api.Submit(
        api_pb2.SubmitRequest(
            owner="ada", idempotency_key=key or stack.new_key(), application="nap", **fields
        ),
        timeout=DEADLINE,
    )
    return answer.job


async def watch(gateway, job_id, after=0):
    request = api_pb2.WatchRequest(job_id=job_id, after=after)
    return [each.event async for each in gateway.api.Watch(request, timeout=DEADLINE)]


async def download(gateway, job_id, name):
    request = api_pb2.DownloadRequest(job_id=job_id, name=name)
    return [part async for part in gateway.api.Download(request, timeout=DEADLINE)]


async def get(gateway, job_id):
    return (await gateway.api.Get(api_pb2.GetRequest(id=job_id), timeout=DEADLINE)).job


async def begun(manager, job_id):
    async with asyncio.timeout(DEADLINE):
        while job_id not in manager.running:
            manager.began.clear()
            await manager.began.wait()


def names(events):
    return [job_pb2.State.Name(event.state).removeprefix("STATE_") for event in events]


async def test_a_job_is_submitted_run_watched_and_downloaded(gateway):
    await gateway.serve_managers([Manager(gateway)])
    job = await submit(gateway, parameters={"seconds": "0.5"})
    events = await watch(gateway, job.id)
    assert names(events) == ["SUBMITTED", "QUEUED", "LEASED", "RUNNING", "SUCCEEDED"]
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    # From a cursor on, and after the end.
    assert names(await watch(gateway, job.id, after=events[2].seq)) == ["RUNNING", "SUCCEEDED"]
    assert await watch(gateway, job.id, after=-1) == []

    outputs = await gateway.api.Outputs(api_pb2.OutputsRequest(job_id=job.id), timeout=DEADLINE)
    (file,) = outputs.manifest.files
    assert outputs.published_at.seconds > 0
    parts = await download(gateway, job.id, file.name)
    content = b"".join(part.chunk for part in parts)
    assert content == CONTENT
    assert parts[-1].sha256 == file.object.sha256 == hashlib.sha256(content).hexdigest()
    listed = await gateway.api.List(api_pb2.ListRequest(owner="ada"), timeout=DEADLINE)
    assert [each.id for each in listed.jobs] == [job.id]
    status = await gateway.scheduler.Status(scheduler_pb2.StatusRequest(), timeout=DEADLINE)
    assert (status.leased, status.started, status.on_offer) == (1, 1, 0)


async def test_content_that_changed_in_the_store_is_not_passed_off_as_the_output(gateway, tmp_path):
    await gateway.serve_managers([Manager(gateway)])
    job = await submit(gateway)
    await watch(gateway, job.id)
    (file,) = (await get(gateway, job.id)).manifest.files
    stored = tmp_path / "objects" / file.object.key
    for damage in (lambda: stored.write_bytes(b"rotten"), stored.unlink):
        damage()
        with pytest.raises(grpc.RpcError) as caught:
            await download(gateway, job.id, "nap.json")
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS
        assert "nap.json" in caught.value.details()


async def test_an_input_is_uploaded_once_and_checked(gateway):
    async def parts(content, sha256=""):
        yield api_pb2.UploadRequest(header=api_pb2.UploadRequest.Header(sha256=sha256))
        for begin in range(0, len(content), 1000):
            yield api_pb2.UploadRequest(chunk=content[begin : begin + 1000])

    content = b"observations\n" * 1000
    digest = hashlib.sha256(content).hexdigest()
    first = await gateway.api.Upload(parts(content), timeout=DEADLINE)
    again = await gateway.api.Upload(parts(content, digest), timeout=DEADLINE)
    expected = job_pb2.ObjectRef(key=f"uploads/{digest}", sha256=digest, size=len(content))
    assert first.object == again.object == expected
    assert [each.key for each in gateway.objects.list("uploads/")] == [expected.key]
    assert b"".join(gateway.objects.get(expected.key)) == content


async def test_the_same_key_gives_the_same_job_and_another_request_conflicts(gateway):
    first = await submit(gateway, key="k", parameters={"seconds": "1"})
    again = await submit(gateway, key="k", parameters={"seconds": "1"})
    assert again.id == first.id
    with pytest.raises(grpc.RpcError) as caught:
        await submit(gateway, key="k", parameters={"seconds": "2"})
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert first.id in caught.value.details()
    assert "idempotency_key" in caught.value.details()


async def test_many_submits_with_one_key_at_once_make_one_job(gateway):
    jobs = await asyncio.gather(*(submit(gateway, key="k") for _ in range(20)))
    assert len({job.id for job in jobs}) == 1


async def test_a_waiting_job_is_cancelled_at_once(gateway):
    job = await submit(gateway)
    watcher = asyncio.create_task(watch(gateway, job.id))
    answer = await gateway.api.Cancel(
        api_pb2.CancelRequest(id=job.id, reason="a mistake"), timeout=DEADLINE
    )
    assert answer.job.state == job_pb2.STATE_CANCELLED
    assert names(await watcher)[-1] == "CANCELLED"
    with pytest.raises(grpc.RpcError) as caught:
        await gateway.api.Outputs(api_pb2.OutputsRequest(job_id=job.id), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "CANCELLED" in caught.value.details()


async def test_a_running_job_is_cancelled_by_its_runner(gateway):
    manager = Manager(gateway, finish=False)
    await gateway.serve_managers([manager])
    job = await submit(gateway)
    await begun(manager, job.id)
    answer = await gateway.api.Cancel(api_pb2.CancelRequest(id=job.id), timeout=DEADLINE)
    assert (answer.job.state, answer.job.cancelling) == (job_pb2.STATE_RUNNING, True)
    told = await manager.renew(job.id)
    assert told.verdict == registry_pb2.RenewResponse.VERDICT_CANCEL
    item = await manager.report(job.id, Outcome.OUTCOME_CANCELLED, fence=told.fence)
    assert item.accepted
    assert names(await watch(gateway, job.id))[-2:] == ["RUNNING", "CANCELLED"]


async def test_an_offer_that_hangs_is_made_elsewhere_and_begun_once(gateway, monkeypatch):
    # The first manager hangs until after the second has begun the job.
    monkeypatch.setattr(ports, "ATTEMPT_SHARE", 0.02)
    managers = [Manager(gateway, name=f"appmanager-{n}", finish=False) for n in range(2)]
    for manager in managers:
        manager.delay.clear()
    await gateway.serve_managers(managers)
    job = await submit(gateway)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(manager.entered.wait() for manager in managers))
    for manager in managers:
        manager.delay.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(manager.answered.wait() for manager in managers))
    assert [job.id in manager.running for manager in managers].count(True) == 1
    found = await get(gateway, job.id)
    assert (found.state, found.attempt, len(found.attempts)) == (job_pb2.STATE_RUNNING, 1, 1)


async def test_more_jobs_than_slots_all_get_through(gateway):
    managers = [Manager(gateway, name=f"appmanager-{n}", slots=2, finish=False) for n in range(3)]
    await gateway.serve_managers(managers)
    jobs = await asyncio.gather(*(submit(gateway) for _ in range(20)))
    ended = asyncio.gather(*(watch(gateway, job.id) for job in jobs))
    async with asyncio.timeout(DEADLINE):
        while not ended.done():
            for manager in managers:
                assert len(manager.running) <= 2
                for job_id in list(manager.running):
                    await manager.succeed(job_id)
            await asyncio.sleep(0.02)
    assert all(names(events)[-1] == "SUCCEEDED" for events in await ended)
    # Every manager had its share, and no attempt was spent on a full one.
    for job in jobs:
        assert (await get(gateway, job.id)).attempt == 1


async def test_a_hundred_people_follow_one_log(gateway):
    manager = Manager(gateway, finish=False)
    await gateway.serve_managers([manager])
    job = await submit(gateway)
    await begun(manager, job.id)

    async def follow():
        request = api_pb2.LogsRequest(job_id=job.id, stream=api_pb2.LOG_STREAM_STDOUT, follow=True)
        return [piece async for piece in gateway.api.Logs(request, timeout=DEADLINE)]

    followers = [asyncio.create_task(follow()) for _ in range(100)]
    written = b""
    for number in range(10):
        line = b"step %d of 10\n" % number
        manager.write(job.id, line)
        written += line
        # The api goes on answering others meanwhile.
        await get(gateway, job.id)
        await asyncio.sleep(0.05)
    assert len(gateway.tails) == 1
    manager.write(job.id, b"done\n")
    await manager.succeed(job.id)
    for pieces in await asyncio.gather(*followers):
        assert b"".join(piece.data for piece in pieces) == written + b"done\n"
        assert {piece.attempt for piece in pieces} == {1}
    assert len(gateway.tails) == 0


async def test_a_hundred_watchers_do_not_hold_up_the_registry(gateway):
    job = await submit(gateway)
    watchers = [asyncio.create_task(watch(gateway, job.id)) for _ in range(100)]
    waiters = [
        asyncio.ensure_future(
            gateway.registry.Changes(
                registry_pb2.ChangesRequest(after=10_000, wait={"seconds": 8}), timeout=DEADLINE
            )
        )
        for _ in range(50)
    ]
    await asyncio.sleep(0.2)
    await asyncio.wait_for(submit(gateway), DEADLINE)
    await gateway.api.Cancel(api_pb2.CancelRequest(id=job.id), timeout=DEADLINE)
    for events in await asyncio.gather(*watchers):
        assert names(events) == ["SUBMITTED", "QUEUED", "CANCELLED"]
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)


async def test_changes_wake_when_another_process_writes(gateway):
    last = (
        await gateway.registry.Changes(registry_pb2.ChangesRequest(after=-1), timeout=DEADLINE)
    ).last
    waiting = asyncio.ensure_future(
        gateway.registry.Changes(
            registry_pb2.ChangesRequest(after=last, wait={"seconds": 10}), timeout=DEADLINE
        )
    )
    await asyncio.sleep(0.1)
    # Another store object shares nothing with the server but the file.
    path = gateway.store._engine.url.database
    other = Store(f"sqlite:///{path}")
    Registry(other).create("ada", "k", spec())
    other.close()
    answer = await waiting
    assert [event.seq for event in answer.events] == [last + 1, last + 2]


async def test_a_job_of_a_flavor_that_nobody_serves_stays_queued(gateway):
    job = await submit(gateway)
    await gateway.serve_managers([Manager(gateway)], flavor="another")
    await asyncio.sleep(0.5)
    found = await get(gateway, job.id)
    assert (found.state, found.fence) == (job_pb2.STATE_QUEUED, 0)
    await gateway.serve_managers([Manager(gateway)])
    assert names(await watch(gateway, job.id))[-1] == "SUCCEEDED"


async def test_all_changes_can_be_watched_from_now_on(gateway):
    await submit(gateway)
    stream = gateway.api.Watch(api_pb2.WatchRequest(after=-1), timeout=DEADLINE)
    following = asyncio.create_task(anext(aiter(stream)))
    await asyncio.sleep(0.3)
    second = await submit(gateway)
    first_event = (await following).event
    assert (first_event.job_id, first_event.state) == (second.id, job_pb2.STATE_SUBMITTED)
    stream.cancel()


async def test_summary_counts_by_state(gateway):
    await submit(gateway)
    job = await submit(gateway)
    await gateway.api.Cancel(api_pb2.CancelRequest(id=job.id), timeout=DEADLINE)
    answer = await gateway.registry.Summary(registry_pb2.SummaryRequest(), timeout=DEADLINE)
    assert {count.state: count.jobs for count in answer.counts} == {
        job_pb2.STATE_QUEUED: 1,
        job_pb2.STATE_CANCELLED: 1,
    }


async def test_followers_are_sent_away_when_their_replica_leaves(gateway, monkeypatch):
    monkeypatch.setattr("shoal_gateway.api.servicer.FOLLOWERS_GRACE", 0.05)
    manager = Manager(gateway, finish=False)
    await gateway.serve_managers([manager])
    job = await submit(gateway)
    await begun(manager, job.id)
    manager.write(job.id, b"hello")
    calls = [
        gateway.api.Watch(api_pb2.WatchRequest(job_id=job.id), timeout=DEADLINE),
        gateway.api.Watch(api_pb2.WatchRequest(after=0), timeout=DEADLINE),
        gateway.api.Logs(
            api_pb2.LogsRequest(job_id=job.id, stream=1, follow=True), timeout=DEADLINE
        ),
    ]
    streams = [aiter(call) for call in calls]
    for stream in streams:
        await anext(stream)
    gateway.api_servicer.leave()
    for stream in streams:
        with pytest.raises(grpc.RpcError) as caught:
            await to_the_end(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "leaving" in caught.value.details()


async def to_the_end(stream):
    async for _ in stream:
        pass
