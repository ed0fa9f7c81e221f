"""Load reports in the answers of a real asyncio server, also where it aborts."""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest

import shoal
import shoal.aio
from shoal import orca
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc

WAIT = 30
REQUEST = echo_pb2.EchoRequest(payload=b"x")
NOT_FOUND = grpc.StatusCode.NOT_FOUND


class Status(NamedTuple):
    """What ``abort_with_status`` takes."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: Any


class Scripted(echo_pb2_grpc.EchoServicer):
    """Coroutines that run a script before they answer."""

    async def script(self, context):
        pass

    async def Echo(self, request, context):
        await self.script(context)
        return echo_pb2.EchoResponse()

    async def EchoDown(self, request, context):
        await self.script(context)
        yield echo_pb2.EchoResponse()
        yield echo_pb2.EchoResponse()

    async def EchoUp(self, requests, context):
        async for _ in requests:
            pass
        await self.script(context)
        return echo_pb2.EchoResponse()

    async def EchoBoth(self, requests, context):
        # grpc's other way: read and write on the context.
        while await context.read() is not grpc.aio.EOF:
            await context.write(echo_pb2.EchoResponse())
        await self.script(context)


class Blocking(echo_pb2_grpc.EchoServicer):
    """The same on threads."""

    def script(self, context):
        pass

    def Echo(self, request, context):
        self.script(context)
        return echo_pb2.EchoResponse()

    def EchoDown(self, request, context):
        self.script(context)
        yield echo_pb2.EchoResponse()


@pytest.fixture
async def served():
    """Makes a server with reports, and a stub to it."""
    ends = []

    async def make(servicer=None, **options):
        server = shoal.aio.Server("echo", **{"linger": 0.1, "load_reports": True, **options})
        servicer = servicer or Scripted()
        echo_pb2_grpc.add_EchoServicer_to_server(servicer, server)
        with FixedDirectory() as directory:
            target = (await server.serve(directory)).target
        channel = grpc.aio.insecure_channel(target)
        ends.append((channel, server))
        return server, servicer, echo_pb2_grpc.EchoStub(channel)

    yield make
    for channel, server in ends:
        await channel.close()
        await server.stop(0)


def report_in(trailers):
    found = orca.report_in(trailers)
    assert found is not None, f"no report in {trailers}"
    return found


def calls(stub):
    """One call of each kind."""
    return {
        "Echo": lambda: stub.Echo(REQUEST, timeout=WAIT),
        "EchoDown": lambda: stub.EchoDown(REQUEST, timeout=WAIT),
        "EchoUp": lambda: stub.EchoUp(iter([REQUEST]), timeout=WAIT),
        "EchoBoth": lambda: stub.EchoBoth(iter([REQUEST]), timeout=WAIT),
    }


async def ended(call):
    """Its trailers, once it is over and its answers are read."""
    if hasattr(call, "read"):
        with suppress(grpc.aio.AioRpcError):
            async for _ in call:
                pass
    await asyncio.wait_for(call.code(), WAIT)
    return await call.trailing_metadata()


KINDS = ["Echo", "EchoDown", "EchoUp", "EchoBoth"]


async def test_nothing_unless_asked(served):
    _, _, stub = await served(load_reports=False)
    assert tuple(await ended(stub.Echo(REQUEST))) == ()


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call(served, kind):
    _, servicer, stub = await served()

    async def script(context):
        context.set_trailing_metadata((("mine", "1"),))

    servicer.script = script
    trailers = await ended(calls(stub)[kind]())
    assert dict(trailers)["mine"] == "1"
    # Without a capacity no utilisation is said.
    assert report_in(trailers) == shoal.LoadReport(0.0, 1.0, 0.0, {"in_flight": 0.0})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["given", "set before", "with a status", "without trailers"])
async def test_an_abort(served, kind, way):
    _, servicer, stub = await served()
    mine = (("mine", "1"),)

    async def script(context):
        shoal.report(context, utilisation=0.7)
        if way == "given":
            await context.abort(NOT_FOUND, "nothing", mine)
        if way == "set before":
            context.set_trailing_metadata(mine)
            await context.abort(NOT_FOUND, "nothing")
        if way == "with a status":
            await context.abort_with_status(Status(NOT_FOUND, "nothing", mine))
        await context.abort(NOT_FOUND, "nothing")

    servicer.script = script
    call = calls(stub)[kind]()
    trailers = await ended(call)
    assert await call.code() is NOT_FOUND
    assert await call.details() == "nothing"
    assert dict(trailers).get("mine") == (None if way == "without trailers" else "1")
    assert report_in(trailers).utilisation == 0.7
    # Counted when the handler is through, which is after an abort.
    servicer.script = Scripted().script
    report = report_in(await ended(stub.Echo(REQUEST)))
    assert (report.qps, report.eps) == (2.0, 0.0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_that_raises(served, kind):
    _, servicer, stub = await served()

    async def script(context):
        raise ZeroDivisionError

    servicer.script = script
    call = calls(stub)[kind]()
    assert report_in(await ended(call)).eps == 1.0
    assert await call.code() is grpc.StatusCode.UNKNOWN


async def test_a_caught_abort_ends_the_call_all_the_same(served):
    _, servicer, stub = await served()

    async def script(context):
        with pytest.raises(grpc.aio.AbortError):
            await context.abort(NOT_FOUND, "nothing")
        context.set_trailing_metadata((("late", "1"),))

    servicer.script = script
    call = stub.Echo(REQUEST)
    assert "late" not in dict(await ended(call))
    assert await call.code() is NOT_FOUND


async def test_a_status_set_and_returned(served):
    _, servicer, stub = await served()

    async def script(context):
        context.set_code(grpc.StatusCode.INTERNAL)
        assert context.code() is grpc.StatusCode.INTERNAL

    servicer.script = script
    assert report_in(await ended(stub.Echo(REQUEST))).eps == 1.0


async def test_a_cancelled_call_is_no_error(served):
    _, servicer, stub = await served()
    inside, out = asyncio.Event(), asyncio.Event()

    async def script(context):
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            out.set()

    servicer.script = script
    call = stub.Echo(REQUEST)
    await asyncio.wait_for(inside.wait(), WAIT)
    call.cancel()
    await asyncio.wait_for(out.wait(), WAIT)
    servicer.script = Scripted().script
    report = report_in(await ended(stub.Echo(REQUEST)))
    assert (report.qps, report.eps) == (2.0, 0.0)


async def test_calls_that_run_and_a_capacity(served):
    _, servicer, stub = await served(load_reports=shoal.LoadReporter(capacity=4.0))
    go, inside = asyncio.Event(), asyncio.Event()

    async def script(context):
        inside.set()
        await go.wait()

    servicer.script = script
    first = stub.Echo(REQUEST)
    await asyncio.wait_for(inside.wait(), WAIT)
    servicer.script = Scripted().script
    report = report_in(await ended(stub.Echo(REQUEST)))
    assert (report.utilisation, report.named["in_flight"]) == (0.25, 1.0)
    go.set()
    await first


async def test_the_whole_context_is_there(served):
    _, servicer, stub = await served()
    seen = {}

    async def script(context):
        seen["metadata"] = dict(context.invocation_metadata())["mine"]
        seen["peer"] = context.peer()
        seen["left"] = context.time_remaining()
        seen["done"] = context.done()
        await context.send_initial_metadata((("early", "1"),))

    servicer.script = script
    call = stub.Echo(REQUEST, metadata=(("mine", "1"),), timeout=WAIT)
    await call
    assert dict(await call.initial_metadata())["early"] == "1"
    assert seen["metadata"] == "1"
    assert seen["peer"].startswith("ipv4:")
    assert 0.0 < seen["left"] <= WAIT + 1.0
    assert seen["done"] is False


@pytest.mark.parametrize("kind", ["Echo", "EchoDown"])
@pytest.mark.parametrize("aborts", [False, True])
async def test_handlers_on_threads(served, kind, aborts):
    _, servicer, stub = await served(Blocking())

    def script(context):
        shoal.report(context, queue=3.0)
        context.set_trailing_metadata((("mine", "1"),))
        if aborts:
            context.abort(NOT_FOUND, "nothing")

    servicer.script = script
    call = calls(stub)[kind]()
    trailers = await ended(call)
    assert await call.code() is (NOT_FOUND if aborts else grpc.StatusCode.OK)
    assert dict(trailers)["mine"] == "1"
    report = report_in(trailers)
    assert report.named["queue"] == 3.0
    assert report.eps == 0.0
