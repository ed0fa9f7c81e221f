"""A server does not repeat what its own caller repeats: chains of real servers."""

import asyncio
import gc
import threading
import time

import grpc
import pytest

import shoal
import shoal.aio
from shoal import lineage
from shoal.channel import Channel
from shoal.retry import Retry
from shoal.testing import FixedDirectory
from shoal_balancer import RetryBudget
from shoal_protos.testing.v1 import echo_pb2 as pb
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.echo import EchoServer

DEADLINE = 30.0
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NESTED = "our own caller is retrying already"


def retry(attempts=3):
    budget = RetryBudget(1.0, 1000.0, clock=time.monotonic, lock=threading.Lock())
    return Retry(attempts=attempts, backoff=0.0, max_backoff=0.0, budget=budget)


class Relay(echo_pb2_grpc.EchoServicer):
    """Asks the next one in the chain, in each way that a stub has."""

    def __init__(self, stub):
        self.stub = stub
        self.whys = []
        self.attempts = []
        self.after = []

    def _ask(self, context, way):
        self.attempts.append(lineage.attempt())
        try:
            return way()
        except shoal.CallError as error:
            self.whys.append(error.why)
            context.abort(error.code(), "the next one failed")

    def Echo(self, request, context):
        return self._ask(context, lambda: self.stub.Echo(request, timeout=DEADLINE))

    def EchoUp(self, requests, context):
        request = next(requests)
        return self._ask(context, lambda: self.stub.Echo.with_call(request, timeout=DEADLINE)[0])

    def EchoDown(self, request, context):
        future = self.stub.Echo.future(request, timeout=DEADLINE)
        yield self._ask(context, future.result)

    def EchoBoth(self, requests, context):
        for request in requests:
            yield from self._ask(
                context, lambda r=request: list(self.stub.EchoDown(r, timeout=DEADLINE))
            )


class AioRelay(echo_pb2_grpc.EchoServicer):
    """The same, awaited."""

    def __init__(self, stub):
        self.stub = stub
        self.whys = []
        self.attempts = []

    async def Echo(self, request, context):
        self.attempts.append(lineage.attempt())
        try:
            return await self.stub.Echo(request, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            self.whys.append(error.why)
            await context.abort(error.code(), "the next one failed")

    async def EchoDown(self, request, context):
        self.attempts.append(lineage.attempt())
        try:
            async for answer in self.stub.EchoDown(request, timeout=DEADLINE):
                yield answer
        except grpc.aio.AioRpcError as error:
            self.whys.append(error.why)
            await context.abort(error.code(), "the next one failed")


@pytest.fixture
def last():
    """The end of the chain, which always fails."""
    with EchoServer("last") as server:
        server.servicer.script = lambda context: context.abort(UNAVAILABLE, "down")
        yield server


@pytest.fixture
def channel_of():
    """Channels of the SDK to one target."""
    channels = []

    def make(target, **options):
        options.setdefault("retry", retry())
        directory = FixedDirectory({"echo": [target]})
        channels.append(Channel(directory, "echo", **options))
        return echo_pb2_grpc.EchoStub(channels[-1])

    yield make
    for channel in channels:
        channel.close()


@pytest.fixture
def relay(channel_of):
    """A server in the middle; its servicer and its target."""
    servers = []

    def make(target, **options):
        server = shoal.Server("echo", **{"linger": 0.1, **options})
        servicer = Relay(channel_of(target))
        echo_pb2_grpc.add_EchoServicer_to_server(servicer, server)
        servers.append(server)
        with FixedDirectory() as directory:
            return servicer, server.serve(directory).target

    yield make
    for server in servers:
        assert server.stop(0).wait(30)


# How the first in the chain asks, so that each kind of handler is the one in the middle.
WAYS = {
    "unary": lambda stub: stub.Echo(pb.EchoRequest(), timeout=DEADLINE),
    "requests": lambda stub: stub.EchoUp(iter([pb.EchoRequest()]), timeout=DEADLINE),
    "responses": lambda stub: list(stub.EchoDown(pb.EchoRequest(), timeout=DEADLINE)),
    "both": lambda stub: list(stub.EchoBoth(iter([pb.EchoRequest()]), timeout=DEADLINE)),
}


class TestChain:
    @pytest.mark.parametrize("reports", [False, True])
    @pytest.mark.parametrize("way", WAYS)
    def test_three_by_three_is_five(self, last, relay, channel_of, way, reports):
        middle, target = relay(last.target, load_reports=reports)
        first = channel_of(target)
        with pytest.raises(grpc.RpcError) as caught:
            WAYS[way](first)
        assert caught.value.code() is UNAVAILABLE
        assert middle.attempts == [1, 2, 3]
        assert middle.whys == ["attempts are used up", NESTED, NESTED]
        assert len(last.seen) == 5

    def test_the_word_is_passed_on(self, last, relay, channel_of):
        """Four in a row: 7 calls at the end, where each layer by itself would make 27."""
        third, target = relay(last.target)
        second, target = relay(target)
        first = channel_of(target)
        second.stub = _Renamed(second.stub)
        with pytest.raises(grpc.RpcError):
            WAYS["requests"](first)
        assert second.attempts == [1, 2, 3]
        assert third.attempts == [1, 2, 3, 2, 3]
        assert len(last.seen) == 7

    def test_a_first_attempt_after_a_later_one_is_free_again(self, last, relay, channel_of):
        middle, target = relay(last.target, workers=1)
        stub = channel_of(target)
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                stub.Echo(pb.EchoRequest(), timeout=DEADLINE)
        assert middle.attempts == [1, 2, 3] * 2
        assert len(last.seen) == 10

    def test_what_was_refused_still_goes_elsewhere(self, relay, channel_of):
        with EchoServer("full") as full, EchoServer("free") as free:
            full.servicer.script = lambda context: shoal.refuse(context, "full")
            middle, target = relay(full.target)
            directory = FixedDirectory({"echo": [full.target, free.target]})
            with Channel(directory, "echo", retry=retry()) as channel:
                middle.stub = echo_pb2_grpc.EchoStub(channel)
                with grpc.insecure_channel(target) as plain:
                    stub = echo_pb2_grpc.EchoStub(plain)
                    for _ in range(10):
                        metadata = (("shoal-attempt", "2"),)
                        answer = stub.Echo(pb.EchoRequest(), timeout=DEADLINE, metadata=metadata)
                        assert answer.server == "free"
            assert middle.attempts == [2] * 10
            assert full.seen


class TestAsyncio:
    @pytest.mark.parametrize("method", ["Echo", "EchoDown"])
    @pytest.mark.parametrize("reports", [False, True])
    async def test_three_by_three_is_five(self, last, channel_of, method, reports):
        directory = FixedDirectory({"echo": [last.target]})
        async with shoal.aio.Channel(directory, "echo", retry=retry()) as channel:
            server = shoal.aio.Server("echo", linger=0.1, load_reports=reports)
            middle = AioRelay(echo_pb2_grpc.EchoStub(channel))
            echo_pb2_grpc.add_EchoServicer_to_server(middle, server)
            with FixedDirectory() as place:
                target = (await server.serve(place)).target
            first = channel_of(target)
            way = WAYS["unary" if method == "Echo" else "responses"]
            with pytest.raises(grpc.RpcError):
                await asyncio.to_thread(way, first)
            await server.stop(0)
        assert middle.attempts == [1, 2, 3]
        assert middle.whys == ["attempts are used up", NESTED, NESTED]
        assert len(last.seen) == 5

    async def test_blocking_handlers(self, last, channel_of):
        server = shoal.aio.Server("echo", linger=0.1)
        middle = Relay(channel_of(last.target))
        echo_pb2_grpc.add_EchoServicer_to_server(middle, server)
        with FixedDirectory() as place:
            target = (await server.serve(place)).target
        with pytest.raises(grpc.RpcError):
            await asyncio.to_thread(WAYS["unary"], channel_of(target))
        await server.stop(0)
        assert middle.attempts == [1, 2, 3]
        assert len(last.seen) == 5


class TestNumber:
    @pytest.mark.parametrize(
        ("value", "number"),
        [("2", 2), ("17", 17), ("1", 1), ("0", 1), ("-3", 1), ("x", 1)],
    )
    def test_in_metadata(self, value, number):
        assert lineage.attempt_in((("other", "9"), ("shoal-attempt", value))) == number

    def test_without_any(self):
        assert lineage.attempt_in(None) == lineage.attempt_in(()) == 1

    def test_it_holds_for_the_block_only(self):
        assert lineage.attempt() == 1
        with lineage.serving(2):
            assert lineage.attempt() == 2
            with lineage.serving(3):
                assert lineage.attempt() == 3
            assert lineage.attempt() == 2
        assert lineage.attempt() == 1

    def test_what_is_passed_on(self):
        mine = (("mine", "1"),)
        assert lineage.passed_on(None) is None
        assert lineage.passed_on(mine) is mine
        assert lineage.passed_on(mine, 2) == (*mine, ("shoal-attempt", "2"))
        with lineage.serving(3):
            assert lineage.passed_on(None, 2) == (("shoal-attempt", "3"),)
            assert lineage.passed_on(mine) == (*mine, ("shoal-attempt", "3"))

    def test_a_stream_collected_elsewhere_does_no_harm(self):
        def stream():
            with lineage.serving(2):
                yield

        made = []
        thread = threading.Thread(target=lambda: (made.append(stream()), next(made[0])))
        thread.start()
        thread.join()
        made.clear()
        gc.collect()
        assert lineage.attempt() == 1


class _Renamed:
    """A stub whose ``Echo`` goes to the next one's ``EchoUp``."""

    def __init__(self, stub):
        self.Echo = self
        self._stub = stub

    def with_call(self, request, timeout):
        return self._stub.EchoUp.with_call(iter([request]), timeout=timeout)
