"""The same for asyncio: channels and servers of several versions and contracts."""

import pytest

import shoal
import shoal.aio
from shoal.aio.channel import Channel
from shoal.contracts import ServedContract
from shoal.testing import FixedDirectory
from shoal_balancer import Replica
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.sdk.aio.support import on_loop
from tests.support.protos import SERVICE
from tests.support.versioned import ASK, BROKEN, OURS, SENTENCE, Calls, aio_server, stub

ECHO = "shoal.testing.v1.Echo"
REQUEST = echo_pb2.EchoRequest(payload=b"x")


@on_loop
async def test_versions_and_contracts_keep_replicas_out():
    directory, calls = FixedDirectory(), Calls()
    good = aio_server("good", OURS, calls, version="1.4")
    bad = aio_server("bad", BROKEN, calls, version="1.5")
    old = aio_server("old", OURS, calls, version="0.9")
    for each in (good, bad, old):
        await each.serve(directory)
    async with Channel(directory, "made", version=">=1", contract=OURS.service) as channel:
        do = stub(channel)
        assert {(await do(ASK, timeout=10.0)).who for _ in range(10)} == {"good"}
        assert {each.replica.id for each in channel.snapshot().unfit} == {"bad", "old"}
        await good.stop(0)
        with pytest.raises(shoal.aio.AioCallError) as caught:
            await do(ASK, timeout=10.0)
    details = caught.value.details()
    assert f"version 1.5 (replica bad) has another contract: {SENTENCE}" in details
    assert "version 0.9 (replica old) is not in '>=1'" in details
    assert set(calls.by_replica) == {"good"}
    await bad.stop(0)
    await old.stop(0)


@on_loop
async def test_what_is_needed_is_learned_from_calls(servers):
    replica = Replica(
        "a", "127.0.0.1", servers[0].port, metadata={"protos_digest": "d", "protos": SERVICE}
    )
    directory = FixedDirectory({"echo": [replica]})
    made = ServedContract.of([SERVICE], OURS.pool)
    directory.ask_contract = lambda digest, reader: reader(digest, made)
    async with Channel(directory, "echo", contract=shoal.Contract()) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        with pytest.raises(shoal.aio.AioCallError, match=f"service {ECHO} is not served"):
            await stub.Echo(REQUEST, timeout=10.0)
        assert stub.Echo.plain
    assert servers[0].seen == []


@on_loop
async def test_a_call_waits_for_a_contract_that_is_being_read(servers):
    replica = Replica("a", "127.0.0.1", servers[0].port, metadata={"protos_digest": "d"})
    directory = FixedDirectory({"echo": [replica]})
    asked = []
    directory.ask_contract = lambda *question: asked.append(question)
    async with Channel(directory, "echo", contract=ECHO) as channel:
        call = echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=20.0)
        [(digest, reader)] = asked
        assert not channel.pool.known
        reader(digest, ServedContract.of([ECHO]))
        assert (await call).server == "a"
