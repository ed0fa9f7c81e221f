"""What is broken when in the partition experiment, and how it is measured."""

import random
from collections import Counter

import pytest

from shoal_gateway.experiments import measures
from shoal_gateway.experiments.disturbance import Disturbance, disturbances
from shoal_gateway.experiments.faults import Happened
from shoal_gateway.experiments.links import Links
from shoal_gateway.experiments.partition import KINDS, SERVICES, schedule
from shoal_gateway.experiments.prober import Probe
from shoal_gateway.experiments.settings import Settings
from shoal_gateway.fleet import FleetState, layout

HOSTS = layout.hosts(3)


@pytest.fixture
def routed():
    """A fleet whose ways lead through proxies, and those."""
    state = FleetState(zookeeper="127.0.0.1:1/gateway", hosts=HOSTS)
    with Links() as links:
        for replica in layout.replicas(len(HOSTS)):
            state = state.with_replica(links.route(state, replica))
        yield state, links


class TestDisturbances:
    FAULTS = (Happened(1, "one", 10.0, 20.0), Happened(2, "two", 30.0, 40.0))

    def test_lasts_until_the_last_call_that_felt_it_had_ended(self):
        probes = [
            Probe(105.0, 3.0),  # Before anything was broken.
            Probe(110.0, 0.01),
            Probe(111.0, 1.5),
            Probe(121.0, 2.0, "DEADLINE_EXCEEDED: too late"),  # The fault is over, its effect not.
            Probe(125.0, 0.01),
            Probe(131.0, 0.01),
        ]

        first, second = disturbances(self.FAULTS, probes, 100.0, slow=0.5)

        assert first == Disturbance(13.0, calls=4, slow=1, failed=1)
        assert second == Disturbance(0.0, calls=1, slow=0, failed=0)

    def test_a_call_counts_for_the_fault_under_which_it_began(self):
        first, second = disturbances(self.FAULTS, [Probe(129.0, 2.0)], 100.0, slow=0.5)

        assert first == Disturbance(21.0, calls=1, slow=1, failed=0)
        assert second.calls == 0


class TestSchedule:
    def test_a_full_run_breaks_every_kind_of_way_in_every_way(self, routed, tmp_path):
        state, links = routed
        settings = Settings(1000, 1, tmp_path, seconds=320.0)

        faults = schedule(settings, links, state, random.Random(1))
        told = []
        for fault in faults:
            with fault.breakage() as what:
                told.append(what)

        kinds = Counter(what.partition(": ")[2] for what in told)
        assert kinds == {
            **{kind.name: 2 for kind in KINDS},
            "cut off": 1,
            "cut off from ZooKeeper": 1,
        }
        replicas = {what.partition(":")[0] for what in told} - set(HOSTS)
        assert {state.replicas[each].service for each in replicas} == set(SERVICES)
        assert 32.0 <= faults[0].at < faults[-1].at <= 288.0
        # Nothing listened, nobody called: the run would say that it has shown nothing.
        assert links.hits == [0] * len(faults)

    def test_the_same_seed_breaks_the_same(self, routed, tmp_path):
        state, links = routed
        settings = Settings(60, 1, tmp_path, seconds=30.0, small=True)

        def told(seed):
            found = []
            for fault in schedule(settings, links, state, random.Random(seed)):
                with fault.breakage() as what:
                    found.append((fault.at, what))
            return found

        assert told(1) == told(1)
        assert told(1) != told(2)


def test_every_way_of_a_replica_leads_through_a_proxy(routed):
    state, _ = routed
    replica = state.replicas["registry-2"]

    assert replica.bind.startswith("127.0.2.1:")
    assert replica.advertise.startswith("127.0.2.1:")
    assert replica.advertise != replica.bind
    assert replica.zookeeper.startswith("127.0.2.1:")
    assert replica.zookeeper.endswith("/gateway")
    # One way to ZooKeeper for each host.
    assert len({each.zookeeper for each in state.replicas.values()}) == len(HOSTS)


def test_latencies_of_a_time_are_of_the_jobs_that_were_submitted_then():
    lines = [{"kind": "begin", "monotonic": 100.0}]
    for number, at in enumerate((101.0, 105.0, 109.0)):
        lines += [
            {"kind": "submit", "key": str(number), "monotonic": at},
            {"kind": "acknowledged", "key": str(number), "job_id": f"j{number}",
             "monotonic": at + 0.5 * (number + 1)},
            {"kind": "terminal", "job_id": f"j{number}", "monotonic": at + 10.0 * (number + 1)},
        ]  # fmt: skip

    found = measures.latencies(lines, between=(4.0, 8.0))

    assert found["submit_seconds"]["p50"] == 1.0
    assert found["submit_seconds"]["p100"] == 1.0
    assert found["job_seconds"]["p100"] == 20.0
