"""Load reports in the answers of real servers, blocking and asyncio."""

import base64
import logging
import re
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

import shoal
from shoal import orca
from shoal.reporter import MOST, Rate
from shoal_protos.testing.v1 import echo_pb2
from tests.support.waiting import eventually
from tests.support.xds import OrcaLoadReport

WAIT = 30
ECHO = "shoal.testing.v1.Echo"
GRPCURL = Path(sys.executable).with_name("grpcurl")
REQUEST = echo_pb2.EchoRequest(payload=b"x")
OK = grpc.StatusCode.OK
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
INTERNAL = grpc.StatusCode.INTERNAL.value[0]


class Held:
    """Holds each call until its name is let go."""

    def __init__(self, *names):
        self.gates = {name: threading.Event() for name in names}

    def __call__(self, context):
        name = dict(context.invocation_metadata()).get("name")
        if name is not None:
            assert self.gates[name].wait(WAIT)

    def go(self, *names):
        for name in names:
            self.gates[name].set()


def named(name):
    return (("name", name),)


def reported(call):
    found = orca.report_in(call.trailing_metadata())
    assert found is not None, f"no report in {call.trailing_metadata()}"
    return found


@pytest.fixture
def served(made, directory, stub_to):
    """A server with reports, and a stub to it."""

    def make(**options):
        server = made(**{"load_reports": True, **options})
        replica = server.serve(directory)
        return server, stub_to(replica.target)

    return make


class TestWhatIsSent:
    def test_nothing_unless_asked(self, made, directory, stub_to):
        stub = stub_to(made().serve(directory).target)
        _, call = stub.Echo.with_call(REQUEST)
        assert call.trailing_metadata() == ()

    def test_an_idle_server(self, served):
        _, stub = served(workers=4)
        _, call = stub.Echo.with_call(REQUEST)
        report = reported(call)
        # Alone in the server: nothing besides it.
        assert report == shoal.LoadReport(0.0, 1.0, 0.0, {"in_flight": 0.0})

    def test_the_standard_key_is_for_others(self, served):
        """grpc's core keeps it from Python callers; grpcurl is written in Go."""
        server, stub = served()
        _, call = stub.Echo.with_call(REQUEST)
        assert {key for key, _ in call.trailing_metadata()} == {"shoal-load-bin"}
        done = subprocess.run(
            [GRPCURL, "-plaintext", "-v", "-d", "{}", server.replica.target, f"{ECHO}/Echo"],
            capture_output=True,
            text=True,
            timeout=WAIT,
        )
        trailers = dict(re.findall(r"^(\S+-bin): (\S+)$", done.stdout, re.MULTILINE))
        assert trailers["endpoint-load-metrics-bin"] == trailers["shoal-load-bin"], done
        data = base64.b64decode(trailers["endpoint-load-metrics-bin"] + "==")
        real = OrcaLoadReport.FromString(data)
        assert real.rps_fractional == 2.0
        assert dict(real.named_metrics) == {"in_flight": 0.0}

    def test_calls_that_run_and_wait(self, served):
        server, stub = served(workers=2)
        server.echo.script = held = Held("a", "b", "c", "d")
        calls = {name: stub.Echo.future(REQUEST, metadata=named(name)) for name in "ab"}
        eventually(lambda: server.roster.running == 2)
        calls |= {name: stub.Echo.future(REQUEST, metadata=named(name)) for name in "cd"}
        eventually(lambda: server._pool.waiting == 2)
        held.go("a")
        calls["a"].result(WAIT)
        report = reported(calls["a"])
        assert report.named["in_flight"] == 3.0
        assert report.utilisation == 1.5
        held.go("b", "c", "d")
        for call in calls.values():
            call.result(WAIT)

    def test_a_given_capacity(self, served):
        server, stub = served(workers=8, load_reports=shoal.LoadReporter(capacity=4.0))
        server.echo.script = held = Held("a")
        first = stub.Echo.future(REQUEST, metadata=named("a"))
        eventually(lambda: server.roster.running == 1)
        _, call = stub.Echo.with_call(REQUEST)
        assert reported(call).utilisation == 0.25
        held.go("a")
        first.result(WAIT)

    def test_the_capacity_is_the_limit_where_there_is_one(self, served):
        server, stub = served(workers=8, limit=shoal.FixedLimit(2))
        server.echo.script = held = Held("a")
        first = stub.Echo.future(REQUEST, metadata=named("a"))
        eventually(lambda: server.roster.running == 1)
        _, call = stub.Echo.with_call(REQUEST)
        assert reported(call).utilisation == 0.5
        held.go("a")
        first.result(WAIT)

    @pytest.mark.parametrize("method", ["Echo", "EchoUp", "EchoDown", "EchoBoth"])
    def test_every_kind_of_call(self, served, method):
        _, stub = served()
        request = iter([REQUEST]) if method in ("EchoUp", "EchoBoth") else REQUEST
        if method in ("Echo", "EchoUp"):
            _, call = getattr(stub, method).with_call(request)
        else:
            call = getattr(stub, method)(request)
            assert len(list(call)) == 1
        assert reported(call).qps == 1.0

    def test_the_report_is_of_a_streams_end(self, served):
        server, stub = served()
        last = threading.Event()

        def requests():
            yield REQUEST
            last.wait(WAIT)

        # It ends when we say so: a stream of answers alone may have ended before we look.
        calls = stub.EchoBoth(requests())
        next(calls)
        server.load.set("late", 1.0)
        last.set()
        assert list(calls) == []
        assert reported(calls).named["late"] == 1.0


class TestEnds:
    def test_an_abort_keeps_its_own_trailers(self, served):
        server, stub = served()

        def script(context):
            context.set_trailing_metadata((("mine", "1"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing here")

        server.echo.script = script
        with pytest.raises(grpc.RpcError) as caught:
            stub.Echo(REQUEST)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert dict(caught.value.trailing_metadata())["mine"] == "1"
        # Not an error of the server.
        report = reported(caught.value)
        assert (report.qps, report.eps) == (1.0, 0.0)

    def test_an_answer_keeps_its_own_trailers(self, served):
        server, stub = served()
        server.echo.script = lambda context: context.set_trailing_metadata((("mine", "1"),))
        _, call = stub.Echo.with_call(REQUEST)
        assert dict(call.trailing_metadata())["mine"] == "1"
        assert reported(call).qps == 1.0

    def test_a_handler_that_raises(self, served):
        server, stub = served()

        def script(context):
            raise ZeroDivisionError

        server.echo.script = script
        with pytest.raises(grpc.RpcError) as caught:
            stub.Echo(REQUEST)
        assert caught.value.code() is grpc.StatusCode.UNKNOWN
        assert reported(caught.value).eps == 1.0

    def test_a_status_set_and_returned(self, served):
        server, stub = served()
        server.echo.script = lambda context: context.set_code(grpc.StatusCode.INTERNAL)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Echo(REQUEST)
        assert reported(caught.value).eps == 1.0

    def test_a_stream_that_breaks_off(self, served):
        _, stub = served()
        calls = stub.EchoDown(echo_pb2.EchoRequest(answers=3, code=INTERNAL, fail_after=1))
        with pytest.raises(grpc.RpcError):
            list(calls)
        assert reported(calls).eps == 1.0

    def test_a_refusal_by_the_handler(self, served):
        server, stub = served()
        server.echo.script = lambda context: shoal.refuse(context, "full", pushback=0.25)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Echo(REQUEST)
        trailers = dict(caught.value.trailing_metadata())
        assert trailers["shoal-refused"] == "full"
        assert trailers["grpc-retry-pushback-ms"] == "250"
        assert reported(caught.value).eps == 0.0


class TestWhatHandlersSay:
    def test_for_one_call(self, served):
        server, stub = served()
        server.echo.script = lambda context: shoal.report(context, utilisation=0.7, queue=12.0)
        _, call = stub.Echo.with_call(REQUEST)
        report = reported(call)
        assert report.utilisation == 0.7
        assert report.named == {"in_flight": 0.0, "queue": 12.0}
        server.echo.script = None
        _, call = stub.Echo.with_call(REQUEST)
        assert reported(call) == shoal.LoadReport(0.0, 2.0, 0.0, {"in_flight": 0.0})

    def test_for_the_server(self, served):
        server, stub = served()
        server.load.set("queue", 12.0)
        server.load.set("utilisation", 0.9)
        _, call = stub.Echo.with_call(REQUEST)
        assert reported(call).named["queue"] == 12.0
        assert reported(call).utilisation == 0.9
        server.load.set("queue", None)
        server.load.set("utilisation", None)
        _, call = stub.Echo.with_call(REQUEST)
        assert "queue" not in reported(call).named
        assert reported(call).utilisation == 0.0

    def test_the_calls_word_goes_before_the_servers(self, served):
        server, stub = served()
        server.load.set("queue", 12.0)
        server.echo.script = lambda context: shoal.report(context, queue=1.0)
        _, call = stub.Echo.with_call(REQUEST)
        assert reported(call).named["queue"] == 1.0

    def test_from_a_stream_and_another_thread(self, served):
        server, stub = served()

        def script(context):
            helper = threading.Thread(target=shoal.report, args=(context,), kwargs={"rows": 3.0})
            helper.start()
            helper.join(WAIT)

        server.echo.script = script
        call = stub.EchoDown(REQUEST)
        list(call)
        assert reported(call).named["rows"] == 3.0

    def test_without_reports_nothing_happens(self, made, directory, stub_to):
        server = made()
        server.echo.script = lambda context: shoal.report(context, utilisation=0.7)
        stub = stub_to(server.serve(directory).target)
        _, call = stub.Echo.with_call(REQUEST)
        assert call.trailing_metadata() == ()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"utilisation": -0.1},
            {"utilisation": float("nan")},
            {"x": float("inf")},
            {"\ud800": 1.0},
        ],
    )
    def test_what_can_not_be_said(self, served, wrong):
        server, stub = served()
        caught = []

        def script(context):
            with pytest.raises(ValueError, match=r"load report|surrogates") as error:
                shoal.report(context, **wrong)
            caught.append(error)

        server.echo.script = script
        stub.Echo(REQUEST)
        assert len(caught) == 1
        with pytest.raises(ValueError, match=r"load report|surrogates"):
            server.load.set(*next(iter(wrong.items())))

    def test_a_service_that_knows_its_utilisation(self, served):
        _, stub = served(load_reports=shoal.LoadReporter(utilisation=lambda: 0.4))
        _, call = stub.Echo.with_call(REQUEST)
        assert reported(call).utilisation == 0.4

    def test_an_answer_does_not_fail_for_its_report(self, served, caplog):
        _, stub = served(load_reports=shoal.LoadReporter(utilisation=lambda: 1 / 0))
        _, call = stub.Echo.with_call(REQUEST)
        assert call.code() is OK
        assert reported(call).utilisation == 0.0
        assert "without its utilisation" in caplog.text

    def test_a_report_that_is_too_long_for_metadata(self, served, caplog):
        server, stub = served()
        for number in range(200):
            server.load.set(f"a-rather-long-name-{number}", 1.0)
        server.load.set("utilisation", 0.5)
        with caplog.at_level(logging.WARNING):
            _, call = stub.Echo.with_call(REQUEST)
        assert reported(call) == shoal.LoadReport(0.5, 1.0, 0.0, {})
        assert "without what was named" in caplog.text
        assert len(orca.encode(server.load.report())) > MOST


class TestReporter:
    @pytest.mark.parametrize("wrong", [{"capacity": 0.0}, {"capacity": -1.0}, {"window": 0}])
    def test_arguments(self, wrong):
        with pytest.raises(ValueError, match="at least 1"):
            shoal.LoadReporter(**wrong)

    def test_rates_follow_the_clock(self):
        now = [100.0]
        reporter = shoal.LoadReporter(window=10, clock=lambda: now[0])
        for number in range(200):
            now[0] = 100.0 + number / 20.0
            reporter.ended(failed=number % 4 == 0)
        now[0] = 110.0
        report = reporter.report()
        assert report.qps == pytest.approx(20.0, rel=0.05)
        assert report.eps == pytest.approx(5.0, rel=0.05)
        now[0] = 125.0
        assert reporter.report().qps == 0.0


class TestRate:
    def test_the_first_second_counts_as_a_whole_one(self):
        rate = Rate(10, 5.5)
        rate.add(5.6, 3)
        assert rate.per_second(5.6) == 3.0
        assert rate.per_second(7.5) == 1.5

    def test_old_seconds_fall_out(self):
        rate = Rate(2, 0.0)
        rate.add(0.5, 6)
        rate.add(1.5, 2)
        assert rate.per_second(2.0) == 4.0
        # The second that began at 0 is out; 1 and 2 are looked back on, 3 runs.
        assert rate.per_second(3.5) == pytest.approx(2.0 / 2.5)
        assert rate.per_second(4.0) == 0.0

    def test_a_long_silence(self):
        rate = Rate(3, 0.0)
        for second in range(4):
            rate.add(float(second), 5)
        assert rate.per_second(1e9) == 0.0
        rate.add(1e9, 6)
        assert rate.per_second(1e9 + 0.5) == pytest.approx(6.0 / 3.5)

    def test_a_clock_seen_late_by_a_thread_does_no_harm(self):
        rate = Rate(3, 10.0)
        rate.add(12.2)
        rate.add(11.9)
        assert rate.per_second(12.2) == pytest.approx(2.0 / 2.2)
