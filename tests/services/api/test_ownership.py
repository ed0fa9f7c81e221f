"""Whose job is whose: what of another's can be seen, named or taken, which is nothing."""

from __future__ import annotations

import asyncio
import uuid

import grpc
import pytest

from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2
from tests.services.api.people import CODE, TIMEOUT, upload, user_of
from tests.support.managers import CONTENT, Manager


@pytest.fixture
async def finished(stack, channel):
    """A job of ada's that has published something, and one of hers that waits."""
    ada = user_of(channel, stack, "ada")
    manager = Manager(stack, finish=False)
    await stack.serve_managers([manager])
    job = await ada.submit()
    await asyncio.wait_for(manager.began.wait(), TIMEOUT)
    manager.write(job.id, b"hello\n")
    await manager.succeed(job.id)
    return ada, job.id


async def test_anothers_job_is_one_that_does_not_exist(stack, channel, finished):
    ada, theirs = finished
    bob = user_of(channel, stack, "bob")
    nobodys = str(uuid.uuid4())
    requests = {
        "Get": lambda job: api_pb2.GetRequest(id=job),
        "Watch": lambda job: api_pb2.WatchRequest(job_id=job),
        "Cancel": lambda job: api_pb2.CancelRequest(id=job),
        "Replay": lambda job: api_pb2.ReplayRequest(id=job),
        "Logs": lambda job: api_pb2.LogsRequest(job_id=job, stream=api_pb2.LOG_STREAM_STDOUT),
        "Outputs": lambda job: api_pb2.OutputsRequest(job_id=job),
        "Download": lambda job: api_pb2.DownloadRequest(job_id=job, name="nap.json"),
    }
    before = (await ada("Get", api_pb2.GetRequest(id=theirs))).job
    for method, request in requests.items():
        code, details = await bob.refusal(method, request(theirs))
        assert code is CODE.NOT_FOUND, method
        # Not a word more than of a job that never was.
        missing = await bob.refusal(method, request(nobodys))
        assert (code, details.replace(theirs, "")) == (missing[0], missing[1].replace(nobodys, ""))
    assert (await ada("Get", api_pb2.GetRequest(id=theirs))).job == before
    # The owner and an administrator get it all.
    for who in (ada, user_of(channel, stack, "root", "admin")):
        assert b"".join(each.data for each in await who("Logs", requests["Logs"](theirs))) == (
            b"hello\n"
        )
        parts = await who("Download", requests["Download"](theirs))
        assert b"".join(each.chunk for each in parts) == CONTENT
        assert len(await who("Watch", requests["Watch"](theirs))) == 5


async def test_lists_and_followers_show_ones_own_jobs(stack, channel):
    ada, bob = user_of(channel, stack, "ada"), user_of(channel, stack, "bob")
    admin = user_of(channel, stack, "root", "admin")
    with_names = {"ada": ada, "bob": bob}
    ids = {name: (await who.submit()).id for name, who in with_names.items()}
    from_before, _ = stack.registry_logic.create("ada", "old", _spec())
    for name, who in with_names.items():
        for request in (api_pb2.ListRequest(), api_pb2.ListRequest(owner="ada")):
            listed = {each.id for each in (await who("List", request)).jobs}
            assert listed <= {ids[name]}
        call = api_pb2_grpc.ApiStub(channel).Watch(
            api_pb2.WatchRequest(), metadata=who._metadata, timeout=TIMEOUT
        )
        seen = {(await call.read()).event.job_id for _ in range(2)}
        call.cancel()
        assert seen == {ids[name]}
    code, _ = await ada.refusal("Get", api_pb2.GetRequest(id=from_before.id))
    assert code is CODE.NOT_FOUND
    everything = {each.id for each in (await admin("List", api_pb2.ListRequest())).jobs}
    assert everything == {*ids.values(), from_before.id}


def _spec():
    return job_pb2.JobSpec(application="nap@1.0", flavor="local", command=["true"])


async def test_keys_are_each_users_own_and_those_from_before_are_not_taken_over(stack, channel):
    ada, bob = user_of(channel, stack, "ada"), user_of(channel, stack, "bob")
    first, second = await ada.submit(idempotency_key="k"), await bob.submit(idempotency_key="k")
    assert first.id != second.id
    assert (await ada.submit(idempotency_key="k")).id == first.id
    # Left out or said, the owner is the same, and so is the request.
    assert (await ada.submit(idempotency_key="k", owner="ada")).id == first.id
    claimed, _ = stack.registry_logic.create("ada", "old", _spec())
    with pytest.raises(grpc.RpcError) as caught:
        await ada.submit(idempotency_key="old")
    assert caught.value.code() is CODE.ALREADY_EXISTS
    assert claimed.id not in caught.value.details()


async def test_nobody_submits_in_anothers_name(stack, channel):
    ada = user_of(channel, stack, "ada")
    one = api_pb2.SubmitRequest(owner="bob", idempotency_key="k", application="nap")
    code, details = await ada.refusal("Submit", one)
    assert (code, "'bob'" in details) == (CODE.PERMISSION_DENIED, True)
    code, details = await ada.refusal("SubmitMany", api_pb2.SubmitManyRequest(requests=[one]))
    assert (code, "requests[0].owner" in details) == (CODE.PERMISSION_DENIED, True)
    assert stack.registry_logic.latest() == 0


async def test_anothers_upload_can_be_neither_named_nor_found_out(stack, channel):
    ada, bob = user_of(channel, stack, "ada"), user_of(channel, stack, "bob")
    theirs = (await ada("Upload", upload(b"secret"))).object
    assert theirs.key.startswith("uploads/ada/")
    file = job_pb2.FileRef(name="x", object=theirs)
    guessed = job_pb2.FileRef(name="x", object=theirs)
    guessed.object.key = theirs.key.replace("ada", "bob")
    for given in (file, guessed):
        request = api_pb2.SubmitRequest(application="nap", idempotency_key="k", inputs=[given])
        code, _ = await bob.refusal("Submit", request)
        assert code is CODE.INVALID_ARGUMENT
