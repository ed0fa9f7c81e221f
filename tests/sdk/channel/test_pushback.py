"""What a refusal's pushback holds back: the replica that said it, and not the others."""

import math
import threading
import time

import grpc
import pytest

import shoal
from shoal.refusal import trailers
from shoal.retry import Failure, Retry, refusal_to_retry
from shoal_balancer import RetryBudget
from shoal_protos.testing.v1 import echo_pb2 as pb

DEADLINE = 30.0
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


def retry(**options):
    budget = RetryBudget(1.0, 1000.0, clock=time.monotonic, lock=threading.Lock())
    return Retry(**{"backoff": 0.0, "max_backoff": 0.0, "budget": budget, **options})


class Full:
    """Servers that refuse their first calls, with a pushback each."""

    def __init__(self, servers, pushbacks, count=math.inf):
        self.seen = []
        for server, pushback in zip(servers, pushbacks, strict=True):
            server.servicer.script = self._script(server.servicer.name, pushback, count)

    def _script(self, name, pushback, count):
        left = [count]

        def script(context):
            self.seen.append((name, time.monotonic()))
            left[0] -= 1
            if left[0] >= 0:
                context.set_trailing_metadata(trailers("overloaded", pushback))
                context.abort(FULL, f"{name} is full")

        return script


class TestAnotherReplica:
    # Neither is declared safe: what was refused was not handled.
    @pytest.mark.parametrize("method", ["Echo", "EchoOnce"])
    def test_it_is_asked_at_once(self, servers, stubs, method):
        full = Full(servers[:2], (20.0, 20.0))
        stub = stubs(retry=retry())
        began = time.monotonic()
        for _ in range(12):
            answer = getattr(stub, method)(pb.EchoRequest(), timeout=DEADLINE)
            assert answer.server == "c"
        assert time.monotonic() - began < 10.0
        assert full.seen

    def test_also_by_a_future_and_a_stream(self, servers, stubs):
        Full(servers[:2], (20.0, 20.0))
        stub = stubs(retry=retry())
        began = time.monotonic()
        for _ in range(6):
            assert stub.Echo.future(pb.EchoRequest(), timeout=DEADLINE).result().server == "c"
            assert next(stub.EchoDown(pb.EchoRequest(), timeout=DEADLINE)).server == "c"
        assert time.monotonic() - began < 10.0

    def test_a_pushback_beyond_the_deadline_does_not_matter(self, servers, stubs):
        Full(servers[:2], (3600.0, 3600.0))
        stub = stubs(retry=retry())
        for _ in range(6):
            assert stub.Echo(pb.EchoRequest(), timeout=5.0).server == "c"

    def test_a_refusal_may_still_forbid(self, servers, stubs):
        full = Full(servers, (-1.0, -1.0, -1.0))
        with pytest.raises(shoal.CallError) as caught:
            stubs(retry=retry()).Echo(pb.EchoRequest(), timeout=DEADLINE)
        assert caught.value.why == "the server forbids a retry"
        assert len(full.seen) == 1


class TestAllRefused:
    def test_the_shortest_pushback_is_waited_for(self, servers, stubs):
        full = Full(servers, (0.9, 0.4, 0.8), count=1)
        stubs(retry=retry()).Echo(pb.EchoRequest(), timeout=DEADLINE)
        assert {name for name, _ in full.seen[:3]} == set("abc")
        assert len(full.seen) == 4
        said = next(at for name, at in full.seen if name == "b")
        assert full.seen[3][1] - said >= 0.35
        assert full.seen[3][1] - full.seen[2][1] < 0.8

    def test_also_by_a_future(self, servers, stubs):
        full = Full(servers, (0.3, 0.3, 0.3), count=1)
        stubs(retry=retry()).EchoOnce.future(pb.EchoRequest(), timeout=DEADLINE).result()
        assert len(full.seen) == 4
        assert full.seen[3][1] - full.seen[0][1] >= 0.25

    def test_each_round_counts_as_an_attempt(self, servers, stubs):
        full = Full(servers, (0.01, 0.01, 0.01))
        with pytest.raises(shoal.CallError) as caught:
            stubs(retry=retry(attempts=3)).EchoOnce(pb.EchoRequest(), timeout=DEADLINE)
        assert caught.value.why == "attempts are used up"
        assert caught.value.code() is FULL
        assert len(full.seen) == 9

    def test_each_round_is_paid_for(self, servers, stubs):
        empty = RetryBudget(0.0, 0.0, clock=time.monotonic, lock=threading.Lock())
        full = Full(servers, (0.01, 0.01, 0.01))
        with pytest.raises(shoal.CallError) as caught:
            stubs(retry=retry(budget=empty)).Echo(pb.EchoRequest(), timeout=DEADLINE)
        assert caught.value.why == "the retry budget is empty"
        assert len(full.seen) == 3

    def test_without_pushback_there_is_no_second_round(self, servers, stubs):
        full = Full(servers, (None, None, None))
        with pytest.raises(shoal.CallError) as caught:
            stubs(retry=retry()).Echo(pb.EchoRequest(), timeout=DEADLINE)
        assert caught.value.why == "no replica is left to try"
        assert len(full.seen) == 3

    def test_beyond_the_deadline_it_ends_at_once(self, servers, stubs):
        full = Full(servers, (60.0, 60.0, 60.0))
        began = time.monotonic()
        with pytest.raises(shoal.CallError) as caught:
            stubs(retry=retry()).Echo(pb.EchoRequest(), timeout=20.0)
        assert caught.value.why == "the deadline leaves no time"
        assert time.monotonic() - began < 15.0
        assert len(full.seen) == 3

    def test_nothing_with_retries_off(self, servers, stubs):
        full = Full(servers, (0.01, 0.01, 0.01))
        with pytest.raises(shoal.CallError) as caught:
            stubs(retry=None).Echo(pb.EchoRequest(), timeout=DEADLINE)
        assert caught.value.why == "retries are off"
        assert len(full.seen) == 1


class TestDecision:
    refused = Failure(FULL, refused="overloaded", pushback=5.0)

    def why(self, failure, **facts):
        facts = {"safe": False, "counted": 1, "remaining": math.inf, "others": False, **facts}
        return refusal_to_retry(retry(), failure, **facts)

    def test_another_replica_needs_only_some_time(self):
        assert self.why(self.refused, others=True, remaining=1.0) is None
        assert self.why(self.refused, others=True, remaining=0.0) == "the deadline leaves no time"

    def test_another_round_needs_the_time_until_somebody_is_back(self):
        assert self.why(self.refused, back=2.0, remaining=2.5) is None
        assert self.why(self.refused, back=2.0, remaining=1.5) == "the deadline leaves no time"

    def test_a_pushback_of_nothing_is_a_pushback(self):
        assert self.why(self.refused, back=0.0, remaining=0.5) is None
        assert self.why(self.refused, back=None) == "no replica is left to try"

    def test_a_handlers_own_pushback_holds_for_every_replica(self):
        failed = Failure(grpc.StatusCode.UNAVAILABLE, pushback=5.0)
        facts = {"safe": True, "others": True}
        assert self.why(failed, remaining=6.0, **facts) is None
        assert self.why(failed, remaining=4.0, **facts) == "the deadline leaves no time"

    def test_a_round_is_a_retry_where_our_caller_retries(self):
        assert self.why(self.refused, others=True, nested=True) is None
        why = "our own caller is retrying already"
        assert self.why(self.refused, back=0.0, nested=True) == why
