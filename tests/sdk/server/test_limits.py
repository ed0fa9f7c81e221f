"""Servers that take only so many calls at once, blocking and asyncio."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import shoal
import shoal.aio
from shoal import orca
from shoal.admission import JITTER, Admission, Lane, Workers
from shoal.channel import Channel
from shoal.refusal import pushback_in, refusal_in
from shoal.testing import FixedDirectory
from shoal_balancer.limit import Average
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc
from tests.support.echo import CODES, Echo
from tests.support.waiting import eventually

WAIT = 30
REQUEST = echo_pb2.EchoRequest(payload=b"x")
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


class HeldEcho(Echo):
    """Holds its calls while it is told to."""

    def __init__(self):
        super().__init__("one")
        self.go = threading.Event()
        self.script = lambda _: self.go.wait(WAIT)


class AioHeldEcho(echo_pb2_grpc.EchoServicer):
    """The same for asyncio; ``go`` may be set from any thread."""

    def __init__(self):
        self.seen = []
        self.go = threading.Event()

    async def _held(self):
        self.seen.append(1)
        await asyncio.to_thread(self.go.wait, WAIT)
        return echo_pb2.EchoResponse(server="one")

    async def Echo(self, request, context):
        answer = await self._held()
        if request.code:
            await context.abort(CODES[request.code], "told to fail")
        return answer

    async def EchoOnce(self, request, context):
        return await self._held()

    async def EchoDown(self, request, context):
        yield await self._held()


class AioThread:
    """An asyncio server on a loop of its own, so that tests may block."""

    def __init__(self, servicer, **options):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.servicer = servicer
        self.server, self.target = self.run(self._serve(options))

    async def _serve(self, options):
        server = shoal.aio.Server("echo", **{"linger": 0.1, **options})
        echo_pb2_grpc.add_EchoServicer_to_server(self.servicer, server)
        with FixedDirectory() as directory:
            return server, (await server.serve(directory)).target

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT)

    def stop(self):
        self.run(self.server.stop(0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(WAIT)
        self.loop.close()


KINDS = ["sync", "aio", "aio with threads"]


@pytest.fixture(params=KINDS)
def serve(request):
    """Makes a server of each kind whose calls are held; its servicer and its target."""
    ended = []

    def make(**options):
        if request.param == "sync":
            servicer = HeldEcho()
            server = shoal.Server("echo", **{"linger": 0.1, "workers": 8, **options})
            echo_pb2_grpc.add_EchoServicer_to_server(servicer, server)
            with FixedDirectory() as directory:
                target = server.serve(directory).target
            ended.append((servicer, lambda: server.stop(0).wait(WAIT)))
            return servicer, target
        servicer = AioHeldEcho() if request.param == "aio" else HeldEcho()
        pool = ThreadPoolExecutor(8)
        thread = AioThread(servicer, executor=pool, **options)
        ended.append((servicer, thread.stop))
        ended.append((servicer, pool.shutdown))
        return servicer, thread.target

    yield make
    for servicer, end in ended:
        servicer.go.set()
        end()


def held(servicer, stub, number):
    """Starts calls and waits until their handlers run; a call that nobody keeps is cancelled."""
    calls = [stub.Echo.future(REQUEST) for _ in range(number)]
    eventually(lambda: len(servicer.seen) >= number)
    return calls


class TestAnyServer:
    def test_what_is_too_much_is_refused_before_its_handler(self, serve, stub_to):
        servicer, target = serve(limit=shoal.FixedLimit(2, pushback=0.2), load_reports=True)
        stub = stub_to(target)
        calls = held(servicer, stub, 2)
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Echo(REQUEST, timeout=WAIT)
            error = caught.value
            assert error.code() is FULL
            assert "2 calls at once" in error.details()
            trailers = error.trailing_metadata()
            assert refusal_in(trailers) == "overloaded"
            assert JITTER[0] * 0.2 <= pushback_in(trailers) <= JITTER[1] * 0.2 + 0.001
            report = orca.report_in(trailers)
            # Those that run; the one that was refused is not among them.
            assert report.utilisation == 1.0
            assert report.named["in_flight"] == 2.0
            assert report.qps == 0.0
        assert len(servicer.seen) == 2
        servicer.go.set()
        assert all(call.result(WAIT).server == "one" for call in calls)
        assert stub.Echo(REQUEST, timeout=WAIT).server == "one"

    def test_what_others_turned_away_gets_in_more_easily(self, serve, stub_to):
        servicer, target = serve(limit=shoal.FixedLimit(2))
        stub = stub_to(target)
        kept = held(servicer, stub, 2)

        def let_in(attempt):
            before = len(servicer.seen)
            call = stub.Echo.future(REQUEST, metadata=(("shoal-attempt", str(attempt)),))
            eventually(lambda: call.done() or len(servicer.seen) > before)
            kept.append(call)
            return not call.done()

        found = [let_in(attempt) for attempt in (1, 2, 2, 3, 3, 9)]
        # Three places for a second try, four for a third, and never more than twice the limit.
        assert found == [False, True, False, True, False, False]

    def test_exactly_as_many_as_there_is_room_for(self, serve, stub_to):
        servicer, target = serve(limit=shoal.FixedLimit(3))
        stub = stub_to(target)
        calls = [stub.Echo.future(REQUEST) for _ in range(20)]
        eventually(lambda: sum(call.done() for call in calls) == 17)
        assert len(servicer.seen) == 3
        servicer.go.set()
        ends = sorted(call.exception(WAIT) is None for call in calls)
        assert ends == [False] * 17 + [True] * 3

    def test_room_comes_back_after_failures_too(self, serve, stub_to):
        servicer, target = serve(limit=shoal.FixedLimit(1))
        servicer.go.set()
        stub = stub_to(target)
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Echo(echo_pb2.EchoRequest(code=5), timeout=WAIT)
            # The answer may be here before the server has counted the call out.
            if refusal_in(caught.value.trailing_metadata()) is None:
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        eventually(lambda: answered(stub))

    def test_care_is_never_refused(self, serve, channel_to):
        servicer, target = serve(limit=shoal.FixedLimit(1))
        channel = channel_to(target)
        _calls = held(servicer, echo_pb2_grpc.EchoStub(channel), 1)
        health = health_pb2_grpc.HealthStub(channel)
        replica = replica_pb2_grpc.ReplicaStub(channel)
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        for _ in range(3):
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            replica.Hello(replica_pb2.HelloRequest(caller_id="c"), timeout=WAIT)
            asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            (listed,) = reflection.ServerReflectionInfo(asked, timeout=WAIT)
            assert len(listed.list_services_response.service) >= 3

    def test_streams_are_not_under_the_limit(self, serve, stub_to):
        servicer, target = serve(limit=shoal.FixedLimit(1))
        stub = stub_to(target)
        _calls = held(servicer, stub, 1)
        stream = stub.EchoDown(REQUEST, timeout=WAIT)
        eventually(lambda: len(servicer.seen) == 2)
        servicer.go.set()
        assert len(list(stream)) == 1

    def test_a_channel_goes_to_another_replica(self, serve):
        servicer, target = serve(limit=shoal.FixedLimit(1, pushback=20.0))
        other = shoal.Server("echo", linger=0.1)
        echo_pb2_grpc.add_EchoServicer_to_server(Echo("two"), other)
        with FixedDirectory() as place:
            second = other.serve(place).target
        directory = FixedDirectory({"echo": [target, second]})
        with grpc.insecure_channel(target) as plain, Channel(directory, "echo") as channel:
            _calls = held(servicer, echo_pb2_grpc.EchoStub(plain), 1)
            stub = echo_pb2_grpc.EchoStub(channel)
            began = time.monotonic()
            answers = {stub.EchoOnce(REQUEST, timeout=WAIT).server for _ in range(20)}
            assert answers == {"two"}
            assert time.monotonic() - began < 10.0
        assert len(servicer.seen) == 1
        assert other.stop(0).wait(WAIT)

    def test_an_adaptive_limit_lets_an_idle_server_work(self, serve, stub_to):
        servicer, target = serve(limit=shoal.AdaptiveLimit(initial=4, least=1))
        servicer.go.set()
        stub = stub_to(target)
        for _ in range(50):
            assert stub.Echo(REQUEST, timeout=WAIT).server == "one"


def answered(stub):
    try:
        return stub.Echo(REQUEST, timeout=WAIT).server == "one"
    except grpc.RpcError:
        return False


class TestBlocking:
    def test_calls_that_wait_for_a_thread_count(self, made, directory, stub_to):
        server = made(workers=1, limit=shoal.FixedLimit(3))
        go = threading.Event()
        server.echo.script = lambda _: go.wait(WAIT)
        stub = stub_to(server.serve(directory).target)
        calls = [stub.Echo.future(REQUEST) for _ in range(3)]
        eventually(lambda: server._pool.waiting == 2)
        # At once, though the only thread is taken.
        with pytest.raises(grpc.RpcError) as caught:
            stub.Echo(REQUEST, timeout=WAIT)
        assert refusal_in(caught.value.trailing_metadata()) == "overloaded"
        go.set()
        assert all(call.result(WAIT).server == "one" for call in calls)

    def test_a_limit_shrinks_where_calls_begin_to_queue(self, made, directory, stub_to):
        """One thread and ever more callers: what waits shows in the latency."""
        limit = shoal.AdaptiveLimit(initial=20, least=2, most=20, window=0.05, queue=1)
        server = made(workers=1, limit=limit, load_reports=True)
        server.echo.script = lambda _: time.sleep(0.002)
        stub = stub_to(server.serve(directory).target)
        stop = threading.Event()

        def call():
            while not stop.is_set():
                answered(stub)

        limiter = server.admission.limiter
        with ThreadPoolExecutor(20) as callers:
            try:
                first = callers.submit(call)
                eventually(lambda: limiter._gradient._usual._count == Average.WARMUP)
                for _ in range(18):
                    callers.submit(call)
                eventually(lambda: limiter.limit <= 15 and server.admission.refused > 0)
            finally:
                stop.set()
        assert first.exception() is None

    def test_a_pool_of_the_handlers_own(self, made, directory, stub_to):
        server = made(limit=shoal.FixedLimit(1))
        own = ThreadPoolExecutor(1, thread_name_prefix="own")
        names = []
        go = threading.Event()

        def behavior(request, context):
            names.append(threading.current_thread().name)
            go.wait(WAIT)
            return echo_pb2.EchoResponse()

        behavior.experimental_thread_pool = own
        handler = grpc.unary_unary_rpc_method_handler(
            behavior,
            echo_pb2.EchoRequest.FromString,
            echo_pb2.EchoResponse.SerializeToString,
        )
        server.add_registered_method_handlers("own.Service", {"Method": handler})
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("own.Service", {"Method": handler})]
        )
        target = server.serve(directory).target
        with grpc.insecure_channel(target) as channel:
            method = channel.unary_unary(
                "/own.Service/Method",
                echo_pb2.EchoRequest.SerializeToString,
                echo_pb2.EchoResponse.FromString,
            )
            first = method.future(REQUEST)
            eventually(lambda: names)
            with pytest.raises(grpc.RpcError) as caught:
                method(REQUEST, timeout=WAIT)
            assert caught.value.code() is FULL
            go.set()
            first.result(WAIT)
        assert names[0].startswith("own")
        own.shutdown()


class TestAdmission:
    def test_a_ticket_measures_its_call(self):
        now = [10.0]
        seen = []

        class Limiter:
            limit = 2
            pushback = 0.1

            def sample(self, *sample):
                seen.append(sample)

        class Limit:
            def limiter(self, lock):
                return Limiter()

        admission = Admission(Limit(), clock=lambda: now[0], spread=lambda: 1.0)
        first, second = admission.try_enter(), admission.try_enter()
        assert admission.try_enter() is None
        assert admission.turn_away() == ("this replica takes 2 calls at once, and has them", 0.1)
        now[0] = 11.5
        admission.leave(second)
        assert seen == [(1.5, 2, 11.5)]
        assert admission.try_enter() is not None
        admission.leave(first)
        assert (admission.in_flight, admission.refused) == (1, 1)

    def test_a_lane_gives_back_what_its_pool_does_not_take(self):
        admission = Admission(shoal.FixedLimit(1))
        pool = Workers(1)
        lane = Lane(pool, admission)
        assert lane.submit(lambda x: x + 1, 1).result(WAIT) == 2
        with pytest.raises(ZeroDivisionError):
            lane.submit(lambda: 1 / 0).result(WAIT)
        assert admission.in_flight == 0
        lane.shutdown()
        assert lane.submit(lambda: 3).result(WAIT) == 3
        pool.shutdown()
        with pytest.raises(RuntimeError):
            lane.submit(lambda: 3)
        assert admission.in_flight == 0
