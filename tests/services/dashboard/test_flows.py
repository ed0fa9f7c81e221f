"""Rates out of what callers tell."""

import pytest

from shoal_gateway.dashboard.flows import (
    STALE,
    Flows,
    between_services,
    ejectors,
    to_replicas,
    total,
)
from shoal_protos.v1 import replica_pb2

ME, PEER = ("scheduler", "scheduler-1"), ("registry", "registry-1")


def callee(calls, *, target="h:1", **more):
    return replica_pb2.Callee(
        service=PEER[0], replica_id=PEER[1], target=target, calls=calls, **more
    )


def rate_of(flows, now):
    (flow,) = flows.current(now)
    return flow.rate


def test_two_tellings_make_a_rate_and_one_makes_none():
    flows = Flows()
    flows.tell(ME, [callee(100)], 10.0)
    assert rate_of(flows, 10.0) == 0.0
    flows.tell(ME, [callee(110, failures=4)], 12.0)
    (flow,) = flows.current(12.0)
    assert (flow.rate, flow.failures) == (5.0, 2.0)


@pytest.mark.parametrize("again", [callee(3), callee(103, target="h:2")])
def test_a_count_that_begins_anew_is_not_negative_and_not_taken_twice(again):
    flows = Flows()
    flows.tell(ME, [callee(100)], 0.0)
    flows.tell(ME, [again], 1.0)
    assert rate_of(flows, 1.0) == again.calls


def test_a_replica_that_a_caller_finds_later_counts_from_its_first_call():
    flows = Flows()
    flows.tell(ME, [], 0.0)
    flows.tell(ME, [callee(6)], 2.0)
    assert rate_of(flows, 2.0) == 3.0


def test_what_was_told_long_ago_counts_no_more():
    flows = Flows()
    flows.tell(ME, [callee(1)], 0.0)
    assert flows.current(STALE)
    assert not flows.current(STALE + 0.1)


def test_who_is_forgotten_begins_anew():
    flows = Flows()
    flows.tell(ME, [callee(1000)], 0.0)
    flows.forget(ME)
    assert flows.current(0.0) == []
    flows.tell(ME, [callee(5)], 1.0)
    assert rate_of(flows, 1.0) == 0.0


def test_sums_by_service_and_by_replica():
    flows = Flows()
    other = ("scheduler", "scheduler-2")
    for caller, before, after, latency in ((ME, 0, 30, 0.1), (other, 0, 10, 0.5)):
        flows.tell(caller, [callee(before)], 0.0)
        flows.tell(caller, [callee(after, latency_seconds=latency, in_flight=1)], 1.0)
    current = flows.current(1.0)
    summed = between_services(current)["scheduler", "registry"]
    assert summed.rate == 40.0
    assert summed.in_flight == 2
    # By rate: the one that calls three times as often knows three times as much.
    assert summed.latency == pytest.approx(0.2)
    assert to_replicas(current)[PEER] == summed


def test_without_calls_there_is_no_latency():
    flows = Flows()
    flows.tell(ME, [callee(5, latency_seconds=0.3)], 0.0)
    assert total(flows.current(0.0)).latency is None


def test_who_ejected_whom():
    flows = Flows()
    flows.tell(ME, [callee(1, ejected=True)], 0.0)
    flows.tell(("api", "api-1"), [callee(1)], 0.0)
    assert ejectors(flows.current(0.0)) == {PEER: ["scheduler-1"]}
