"""An api that asks for users: who gets in, and whose jobs are whose."""

from __future__ import annotations

import asyncio
import uuid

import grpc
import pytest

from shoal_gateway import tokens
from shoal_gateway.api.callers import TTL
from shoal_gateway.api.servicer import RegistryClient
from shoal_gateway.errors import QuotaError
from shoal_gateway.registry.schema import jobs
from shoal_protos.gateway.api.v1 import accounts_pb2, api_pb2, api_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2
from tests.services.api.people import CODE, SECRET, TIMEOUT, User, upload, user_of
from tests.support.stack import running


def all_calls():
    """A request for each of the methods that users call."""
    job = str(uuid.uuid4())
    return {
        "Applications": api_pb2.ApplicationsRequest(),
        "Upload": upload(b"x"),
        "Submit": api_pb2.SubmitRequest(application="nap", idempotency_key="k"),
        "SubmitMany": api_pb2.SubmitManyRequest(
            requests=[{"application": "nap", "idempotency_key": "k"}]
        ),
        "Get": api_pb2.GetRequest(id=job),
        "List": api_pb2.ListRequest(),
        "Watch": api_pb2.WatchRequest(job_id=job),
        "Cancel": api_pb2.CancelRequest(id=job),
        "Replay": api_pb2.ReplayRequest(id=job),
        "Logs": api_pb2.LogsRequest(job_id=job, stream=api_pb2.LOG_STREAM_STDOUT),
        "Outputs": api_pb2.OutputsRequest(job_id=job),
        "Download": api_pb2.DownloadRequest(job_id=job, name="nap.json"),
        "WhoAmI": accounts_pb2.WhoAmIRequest(),
        "AddUser": accounts_pb2.AddUserRequest(name="eve"),
        "SetUser": accounts_pb2.SetUserRequest(name="eve"),
        "ListUsers": accounts_pb2.ListUsersRequest(),
        "CreateToken": accounts_pb2.CreateTokenRequest(user="eve", scopes=[3]),
        "ListTokens": accounts_pb2.ListTokensRequest(),
        "RevokeToken": accounts_pb2.RevokeTokenRequest(id="0" * 16),
    }


WRITES = {"Upload", "Submit", "SubmitMany", "Cancel", "Replay"}
ADMINS = {"AddUser", "SetUser", "ListUsers", "CreateToken", "ListTokens", "RevokeToken"}


def test_the_calls_tried_here_are_all_that_there_are():
    services = [
        api_pb2.DESCRIPTOR.services_by_name["Api"],
        accounts_pb2.DESCRIPTOR.services_by_name["Accounts"],
    ]
    assert set(all_calls()) == {each.name for one in services for each in one.methods}


@pytest.mark.parametrize(
    "secret", ["", "hunter2", "shoal_0000000000000000_", tokens.new().text], ids=range(4)
)
async def test_a_stranger_gets_no_call_through(stack, channel, secret):
    stranger = User(channel, secret)
    for method, request in all_calls().items():
        code, details = await stranger.refusal(method, request)
        assert code is CODE.UNAUTHENTICATED, method
        assert "token" in details
        assert not secret or secret not in details
    assert stack.registry_logic.latest() == 0
    assert not stack.members.users()


async def test_a_wrong_secret_and_an_unknown_id_are_told_the_same(stack, channel):
    good = tokens.parse(stack.token("ada"))
    wrong = f"shoal_{good.id}_{tokens.new().text[SECRET:]}"
    whoami = accounts_pb2.WhoAmIRequest()
    first = await User(channel, wrong).refusal("WhoAmI", whoami)
    assert first == await User(channel, tokens.new().text).refusal("WhoAmI", whoami)


async def test_two_tokens_in_one_call_are_none(stack, channel):
    ada = user_of(channel, stack, "ada")
    ada._metadata *= 2
    code, _ = await ada.refusal("WhoAmI", accounts_pb2.WhoAmIRequest())
    assert code is CODE.UNAUTHENTICATED


async def test_a_token_is_good_for_its_scopes_only(stack, channel):
    reader = user_of(channel, stack, "ada", "jobs:read")
    writer = user_of(channel, stack, "ada", "jobs:write")
    for method, request in all_calls().items():
        wants_no_scope = method in ("Applications", "WhoAmI")
        for who, may in (
            (reader, method not in WRITES | ADMINS),
            (writer, method in WRITES or wants_no_scope),
        ):
            if may:
                continue
            code, details = await who.refusal(method, request)
            assert code is CODE.PERMISSION_DENIED, method
            assert "scope" not in details
            assert "the token is not good for" in details
    assert [each.name for each in stack.members.users()] == ["ada"]
    assert (await reader("List", api_pb2.ListRequest())).jobs == []
    assert (await writer.submit()).account == "ada"


async def test_an_expired_token_and_a_disabled_user_are_refused_with_the_reason(stack, channel):
    stale = user_of(channel, stack, "ada", valid=-1.0)
    code, details = await stale.refusal("List", api_pb2.ListRequest())
    assert (code, "expired" in details) == (CODE.UNAUTHENTICATED, True)
    bob = user_of(channel, stack, "bob")
    stack.members.put_user("bob", {}, disabled=True)
    code, details = await bob.refusal("List", api_pb2.ListRequest())
    assert (code, "disabled" in details) == (CODE.UNAUTHENTICATED, True)


async def test_a_revoked_token_is_refused_within_the_time_that_answers_are_remembered(
    stack, channel, clock
):
    admin = user_of(channel, stack, "root", "admin")
    secret = stack.token("ada")
    ada = User(channel, secret)
    await ada("List", api_pb2.ListRequest())
    request = accounts_pb2.RevokeTokenRequest(id=tokens.parse(secret).id)
    revoked = (await admin("RevokeToken", request)).token
    assert revoked.HasField("revoked_at")
    # Remembered: this is what a revocation may take, and no longer.
    await ada("List", api_pb2.ListRequest())
    clock.now += TTL
    code, details = await ada.refusal("List", api_pb2.ListRequest())
    assert (code, "revoked" in details) == (CODE.UNAUTHENTICATED, True)
    again = (await admin("RevokeToken", request)).token
    assert again.revoked_at == revoked.revoked_at


async def test_a_stream_ends_when_its_token_is_revoked(stack, channel, clock):
    secret = stack.token("ada")
    ada = User(channel, secret)
    await ada.submit()
    clock.now += TTL - 1.0
    stub = api_pb2_grpc.ApiStub(channel)
    call = stub.Watch(api_pb2.WatchRequest(), metadata=ada._metadata, timeout=TIMEOUT)
    assert (await call.read()).event.state == job_pb2.STATE_SUBMITTED
    stack.members.revoke(tokens.parse(secret).id)
    # As soon as a call would be refused, however young the stream is.
    clock.now += 1.0
    other = user_of(channel, stack, "ada")
    await other.submit()

    async def read_on():
        while True:
            await call.read()

    with pytest.raises(grpc.RpcError) as caught:
        await read_on()
    assert caught.value.code() is CODE.UNAUTHENTICATED


async def test_administrators_make_users_and_tokens_which_work(stack, channel):
    admin = user_of(channel, stack, "root", "admin")
    await admin("AddUser", accounts_pb2.AddUserRequest(name="ada", quotas={"jobs_in_flight": 7}))
    made = await admin(
        "CreateToken", accounts_pb2.CreateTokenRequest(user="ada", scopes=[1, 2], label="laptop")
    )
    ada = User(channel, made.secret)
    me = await ada("WhoAmI", accounts_pb2.WhoAmIRequest())
    assert (me.user.name, me.user.effective.jobs_in_flight, me.token.label) == ("ada", 7, "laptop")
    assert me.token == made.token
    assert (await ada.submit()).account == "ada"
    changed = await admin(
        "SetUser", accounts_pb2.SetUserRequest(name="ada", quotas={"submits_per_minute": 1})
    )
    assert changed.user.effective.jobs_in_flight == stack.members.quotas.jobs_in_flight
    listed = (await admin("ListTokens", accounts_pb2.ListTokensRequest(user="ada"))).tokens
    assert [each.id for each in listed] == [made.token.id]
    # Nothing of the secret is in the store.
    secret = made.secret[SECRET:].encode()
    database = stack.store._engine.url.database
    stored = b"".join(path.read_bytes() for path in _files(database) if path.is_file())
    assert made.token.id.encode() in stored
    assert secret not in stored


def _files(database):
    from pathlib import Path

    return Path(database).parent.glob("registry.db*")


@pytest.mark.parametrize(
    ("method", "request_", "code", "words"),
    [
        ("AddUser", {"name": "../x"}, CODE.INVALID_ARGUMENT, "name"),
        ("AddUser", {"name": "a" * 65}, CODE.INVALID_ARGUMENT, "64"),
        ("AddUser", {"name": "root"}, CODE.ALREADY_EXISTS, "users set"),
        ("SetUser", {"name": "eve"}, CODE.NOT_FOUND, "users add eve"),
        ("CreateToken", {"user": "eve", "scopes": [1]}, CODE.NOT_FOUND, "users add eve"),
        ("CreateToken", {"user": "root"}, CODE.INVALID_ARGUMENT, "scopes"),
        ("CreateToken", {"user": "root", "scopes": [9]}, CODE.INVALID_ARGUMENT, "scopes[0]"),
        ("RevokeToken", {"id": "zz"}, CODE.INVALID_ARGUMENT, "16"),
        ("RevokeToken", {"id": "0" * 16}, CODE.NOT_FOUND, "tokens list"),
    ],
)
async def test_mistakes_of_administrators_are_named(stack, channel, method, request_, code, words):
    admin = user_of(channel, stack, "root", "admin")
    found, details = await admin.refusal(
        method, getattr(accounts_pb2, f"{method}Request")(**request_)
    )
    assert (found, words in details) == (code, True)


async def test_quotas_are_told_and_cost_no_registry_its_good_name(stack, channel):
    ada = user_of(channel, stack, "ada")
    stack.members.put_user("ada", {"submits_per_minute": 2, "bytes_per_day": 4})
    await ada("Upload", upload(b"four"))
    # The same again is stored already.
    await ada("Upload", upload(b"four"))
    code, details = await ada.refusal("Upload", upload(b"5"))
    assert (code, "quota bytes_per_day" in details) == (CODE.RESOURCE_EXHAUSTED, True)
    stack.members.put_user("ada", {"submits_per_minute": 2})
    for _ in range(2):
        await ada.submit()
    for _ in range(20):
        code, details = await ada.refusal(
            "Submit", api_pb2.SubmitRequest(application="nap", idempotency_key="more")
        )
        assert code is CODE.RESOURCE_EXHAUSTED
        assert "quota submits_per_minute: ada has submitted 2 jobs" in details
    many = await ada(
        "SubmitMany",
        api_pb2.SubmitManyRequest(requests=[{"application": "nap", "idempotency_key": "m"}]),
    )
    assert (many.items[0].id, many.items[0].quota) == ("", "submits_per_minute")
    dead = _dead_job_of("ada", stack)
    code, details = await ada.refusal("Replay", api_pb2.ReplayRequest(id=dead))
    assert (code, "quota submits_per_minute" in details) == (CODE.RESOURCE_EXHAUSTED, True)
    # Beside one that can't be written down they are asked about one by one.
    over = registry_pb2.CreateJobRequest(
        owner="ada",
        idempotency_key="over",
        account="ada",
        spec=stack.registry_logic.get(dead)[0].spec,
    )
    wrong = registry_pb2.CreateJobRequest(owner="ada", account="ada")
    client = RegistryClient(stack.registry)
    answers = await asyncio.gather(
        *(client.create(each) for each in (over, over, wrong)), return_exceptions=True
    )
    assert [type(each) for each in answers[:2]] == [QuotaError] * 2
    assert answers[2].code() is CODE.INVALID_ARGUMENT
    # Twenty statuses of that kind would have had it ejected.
    (registry,) = stack.to_registry.snapshot().replicas
    assert registry.calls > 20
    assert registry.failures == 0


def _dead_job_of(user, stack):
    registry = stack.registry_logic
    job = registry.page(user, [], 1, "")[0][0]
    with stack.store.write() as connection:
        connection.execute(
            jobs.update().where(jobs.c.id == job.id).values(state=job_pb2.STATE_DEAD)
        )
    return job.id


async def test_the_registry_is_asked_once_for_many_calls(stack, channel, clock):
    ada = user_of(channel, stack, "ada")
    asked = []
    check = stack.members.check

    def counting(*arguments):
        asked.append(arguments)
        return check(*arguments)

    stack.members.check = counting
    for _ in range(3):
        await asyncio.gather(*(ada("List", api_pb2.ListRequest()) for _ in range(20)))
    assert len(asked) == 1
    clock.now += TTL
    await ada("List", api_pb2.ListRequest())
    assert len(asked) == 2


async def test_an_open_gateway_has_no_users(tmp_path):
    async with running(tmp_path) as stack:
        anybody = User(stack.raw("api"), "")
        code, details = await anybody.refusal("WhoAmI", accounts_pb2.WhoAmIRequest())
        assert (code, "--users required" in details) == (CODE.FAILED_PRECONDITION, True)
        job = await anybody.submit(owner="ada")
        assert (job.owner, job.account) == ("ada", "")
        assert (await anybody("Get", api_pb2.GetRequest(id=job.id))).job.id == job.id
