"""What is measured and traced of calls, blocking and awaited, against real servers."""

from __future__ import annotations

import subprocess
import sys
import threading

import grpc
import pytest
from opentelemetry.trace import StatusCode

import shoal
import shoal.aio
import shoal.otel
from shoal.calls import UnaryUnaryMethod
from shoal_balancer import Ejection, RoundRobin
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc

WAIT = 30.0
ATTEMPT, CALL = "grpc.client.attempt.duration", "grpc.client.call.duration"
REQUEST = echo_pb2.EchoRequest(payload=b"x" * 100)


def failing_once(servers):
    """The first call that comes to any of them fails."""
    failed = threading.Event()

    def script(context):
        if not failed.is_set():
            failed.set()
            context.abort(grpc.StatusCode.UNAVAILABLE, "once")

    for server in servers:
        server.servicer.script = script


def is_whole(seen, attempts):
    """One trace: a call, and its attempts below it in their order."""
    (call,) = seen.spans("Sent.")
    tried = seen.spans("Attempt.")
    assert [span.attributes["previous-rpc-attempts"] for span in tried] == list(range(attempts))
    assert {span.parent.span_id for span in tried} == {call.context.span_id}
    assert {span.context.trace_id for span in tried} == {call.context.trace_id}
    return call, tried


def test_without_an_observer_methods_are_what_they_were(directory):
    with directory.channel("echo") as channel:
        assert type(echo_pb2_grpc.EchoStub(channel).Echo) is UnaryUnaryMethod
        assert channel.hooks is None


def test_shoal_itself_imports_nothing_of_opentelemetry():
    # Names are imported when they are asked for: all of them are.
    code = (
        "import sys, shoal, shoal.aio\n"
        "found = [getattr(each, name) for each in (shoal, shoal.aio) for name in each.__all__]\n"
        "print('shoal.channel' in sys.modules, 'opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True False", done.stderr


def test_a_call_is_counted_with_its_attempt_sizes_and_trace(seen, directory, servers):
    with directory.channel("echo") as channel:
        echo = echo_pb2_grpc.EchoStub(channel)
        answer = echo.Echo(REQUEST, timeout=WAIT, metadata=[("mine", "1")])
    labels = {"method": "Echo", "target": "zookeeper:///echo", "status": "OK"}
    assert seen.count(CALL, **labels) == seen.count(ATTEMPT, **labels) == 1
    assert seen.count("grpc.client.attempt.started", method="Echo") == 1
    (sent,) = seen.points("grpc.client.attempt.sent_total_compressed_message_size", **labels)
    (received,) = seen.points("grpc.client.attempt.rcvd_total_compressed_message_size", **labels)
    assert (sent.sum, received.sum) == (REQUEST.ByteSize(), answer.ByteSize())
    _, (attempt,) = is_whole(seen, 1)
    ((_, metadata),) = [each for server in servers for each in server.seen]
    assert metadata["mine"] == "1"
    sent_as = f"00-{attempt.context.trace_id:032x}-{attempt.context.span_id:016x}-"
    assert metadata["traceparent"].startswith(sent_as)
    assert seen.count("grpc.client.call.retries") == 0


def test_a_trace_goes_once_with_a_call_that_brings_one(seen, directory, servers):
    heard = []
    for server in servers:
        server.servicer.script = lambda context: heard.extend(context.invocation_metadata())
    other = f"00-{'1' * 32}-{'2' * 16}-01"
    with directory.channel("echo") as channel:
        metadata = [("traceparent", other), ("tracestate", "a=1"), ("mine", "1")]
        echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=WAIT, metadata=metadata)
    (attempt,) = seen.spans("Attempt.")
    (parent,) = [value for name, value in heard if name == "traceparent"]
    assert f"{attempt.context.span_id:016x}" in parent
    assert {"mine", "traceparent", "tracestate"} & {name for name, _ in heard} == {
        "mine",
        "traceparent",
    }


@pytest.mark.parametrize("how", ["call", "with_call", "future", "stream", "upload", "both"])
def test_a_retry_is_an_attempt_of_the_same_call(seen, directory, servers, how):
    failing_once(servers)
    with directory.channel("echo", retry=shoal.Retry(backoff=0.001)) as channel:
        echo = echo_pb2_grpc.EchoStub(channel)
        if how == "call":
            method, _ = "Echo", echo.Echo(REQUEST, timeout=WAIT)
        elif how == "with_call":
            method, _ = "Echo", echo.Echo.with_call(REQUEST, timeout=WAIT)
        elif how == "future":
            method, _ = "Echo", echo.Echo.future(REQUEST, timeout=WAIT).result()
        elif how == "stream":
            method, _ = "EchoDown", list(echo.EchoDown(REQUEST, timeout=WAIT))
        elif how == "upload":
            method, _ = "EchoUp", echo.EchoUp(request_iterator=iter([REQUEST]), timeout=WAIT)
        else:
            requests = iter([REQUEST])
            method, _ = "EchoBoth", list(echo.EchoBoth(request_iterator=requests, timeout=WAIT))
        seen.counts(1, CALL, method=method, status="OK")
        seen.counts(1, ATTEMPT, method=method, status="UNAVAILABLE")
        seen.counts(1, ATTEMPT, method=method, status="OK")
    (retries,) = seen.points("grpc.client.call.retries", method=method)
    assert (retries.count, retries.sum) == (1, 1)
    assert seen.count("grpc.client.call.retry_delay", method=method) == 1
    call, (first, second) = is_whole(seen, 2)
    assert (first.status.status_code, second.status.status_code) == (
        StatusCode.ERROR,
        StatusCode.UNSET,
    )
    assert first.attributes["shoal.replica"] != second.attributes["shoal.replica"]
    assert call.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("how", ["call", "stream", "upload", "both"])
async def test_a_retry_on_asyncio(seen, directory, servers, how):
    failing_once(servers)
    retry = shoal.Retry(backoff=0.001)
    async with shoal.aio.Channel(directory, "echo", retry=retry) as channel:
        echo = echo_pb2_grpc.EchoStub(channel)
        if how == "call":
            method, _ = "Echo", await echo.Echo(REQUEST, timeout=WAIT)
        elif how == "stream":
            method, _ = "EchoDown", [each async for each in echo.EchoDown(REQUEST, timeout=WAIT)]
        elif how == "upload":
            method, _ = "EchoUp", await echo.EchoUp(request_iterator=iter([REQUEST]), timeout=WAIT)
        else:
            call = echo.EchoBoth(iter([REQUEST]), WAIT)
            method, _ = "EchoBoth", [each async for each in call]
    assert seen.count(CALL, method=method, status="OK") == 1
    assert seen.count(ATTEMPT, method=method, status="UNAVAILABLE") == 1
    assert seen.count(ATTEMPT, method=method, status="OK") == 1
    (retries,) = seen.points("grpc.client.call.retries", method=method)
    assert (retries.count, retries.sum) == (1, 1)
    is_whole(seen, 2)
    # Sizes are those of methods with one request and one response.
    size = "grpc.client.attempt.sent_total_compressed_message_size"
    assert seen.count(size, method=method) == (2 if how == "call" else 0)


async def test_a_call_on_asyncio_has_sizes_and_ends_once(seen, directory):
    async with shoal.aio.Channel(directory, "echo") as channel:
        answer = await echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=WAIT)
        with pytest.raises(grpc.aio.AioRpcError):
            await echo_pb2_grpc.EchoStub(channel).EchoOnce(
                echo_pb2.EchoRequest(code=5), timeout=WAIT
            )
    (received,) = seen.points(
        "grpc.client.attempt.rcvd_total_compressed_message_size", method="Echo"
    )
    assert received.sum == answer.ByteSize()
    assert seen.count(CALL, method="Echo", status="OK") == 1
    assert seen.count(CALL, method="EchoOnce", status="NOT_FOUND") == 1


def test_failures_say_their_status(seen, directory):
    with directory.channel("echo") as channel:
        echo = echo_pb2_grpc.EchoStub(channel)
        with pytest.raises(shoal.CallError):
            echo.EchoOnce(echo_pb2.EchoRequest(code=5), timeout=WAIT)
    assert seen.count(CALL, method="EchoOnce", status="NOT_FOUND") == 1
    (call,) = seen.spans("Sent.")
    assert call.status.status_code is StatusCode.ERROR
    assert call.status.description.startswith("NOT_FOUND")


def test_nobody_to_call_is_a_call_without_an_attempt(seen, directory):
    directory.set("echo", [])
    with directory.channel("echo") as channel, pytest.raises(shoal.CallError):
        echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=0.2)
    assert seen.count(CALL, method="Echo", status="UNAVAILABLE") == 1
    assert seen.count("grpc.client.attempt.started", method="Echo") == 0


def test_a_hedge_is_counted_as_one(seen, directory, servers):
    with directory.channel(
        "echo", hedge=shoal.Hedge(quantile=0.5, shortest=0.01, volume=5), policy=RoundRobin()
    ) as channel:
        echo = echo_pb2_grpc.EchoStub(channel)
        for _ in range(20):
            echo.Echo(REQUEST, timeout=WAIT)
        slow = echo_pb2.EchoRequest(work=0.3)
        echo.Echo(slow, timeout=WAIT)
    assert seen.count("grpc.client.call.hedges", method="Echo") >= 1
    assert seen.count("grpc.client.call.retries", method="Echo") == 0


def test_ejections_reach_hooks_of_the_user_too(seen, directory, servers):
    class Heard(shoal.Hooks):
        ejections = 0
        ends = 0

        def ended(self, replica, latency, outcome):
            self.ends += 1

        def ejected(self, replica, seconds):
            self.ejections += 1

    servers[0].servicer.script = lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "no")
    heard = Heard()
    rule = Ejection(failures=2)
    with directory.channel("echo", hooks=heard, policy=RoundRobin(), ejection=rule) as channel:
        echo = echo_pb2_grpc.EchoStub(channel)
        for _ in range(8):
            echo.Echo(REQUEST, timeout=WAIT)
        (ejected,) = [
            point
            for point in seen.points("shoal.channel.replicas")
            if point.attributes["shoal.state"] == "ejected"
        ]
        assert ejected.value == 1
    assert heard.ejections >= 1
    assert heard.ends >= 8
    assert seen.count("grpc.lb.outlier_detection.ejections_enforced") == heard.ejections


def test_many_threads_lose_no_count(seen, directory):
    with directory.channel("echo") as channel:
        echo = echo_pb2_grpc.EchoStub(channel)
        threads = [
            threading.Thread(target=lambda: [echo.Echo(REQUEST, timeout=WAIT) for _ in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen.count(CALL, method="Echo", status="OK") == 400
    (attempts,) = seen.points(ATTEMPT, method="Echo")
    assert sum(attempts.bucket_counts) == 400


def test_it_wants_the_sdks_provider():
    with pytest.raises(ValueError, match="meter_provider"):
        shoal.otel.instrument()
    with pytest.raises(TypeError, match="readers"):
        shoal.otel.instrument(object())
