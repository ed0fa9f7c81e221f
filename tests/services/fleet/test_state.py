"""The fleet's file."""

import pytest

from shoal_gateway.fleet import layout
from shoal_gateway.fleet.processes import Identity
from shoal_gateway.fleet.state import FleetState, ReplicaState, StateFile


def test_a_fleet_is_read_as_it_was_written(tmp_path):
    state = FleetState(zookeeper="127.0.0.1:1/gateway", hosts=layout.hosts(3))
    for replica in layout.replicas(3):
        state = state.with_replica(replica)
    state = state.with_replica(
        ReplicaState("registry-1", "registry", "host-1", process=Identity(7, 99))
    )
    file = StateFile(tmp_path)
    file.write(state)
    assert file.read() == state


def test_no_file_is_no_fleet(tmp_path):
    assert StateFile(tmp_path).read() is None


@pytest.mark.parametrize("text", ["{", '{"format": 99}', '{"format": 1, "replicas": {"a": {}}}'])
def test_a_file_that_can_not_be_read_says_which(tmp_path, text):
    file = StateFile(tmp_path)
    file.path.write_text(text)
    with pytest.raises(ValueError, match=r"fleet\.json|Expecting"):
        file.read()


def test_three_hosts_have_a_replica_of_each_service_and_of_each_flavor():
    planned = list(layout.replicas(3))
    assert len(planned) == 15
    assert len({replica.id for replica in planned}) == 15
    for service in ("registry", "api", "scheduler"):
        assert {r.host for r in planned if r.service == service} == {"host-1", "host-2", "host-3"}
    flavors = {(r.flavor, r.host) for r in planned if r.service == "appmanager"}
    assert len(flavors) == 6
