"""Which replicas an upgrade pairs, also after one that was cut off."""

from pathlib import Path

import pytest

from shoal_gateway.fleet import Fleet, FleetError, FleetState, ReplicaState
from shoal_gateway.fleet.gate import Patience
from shoal_gateway.fleet.releases import Release
from shoal_gateway.fleet.rollout import Plan
from shoal_gateway.fleet.state import StateFile
from shoal_gateway.fleet.upgrade import Wish, places, upgraded

SECOND = Release("2", Path("/releases/2"))


def parts(tmp_path, *replicas, surge=True, service="api"):
    state = FleetState(hosts={"host-1": "127.0.1.1"})
    for name, version in replicas:
        state = state.with_replica(ReplicaState(name, "api", "host-1", version=version))
    StateFile(tmp_path).write(state)
    wish = Wish(service, "2", Plan(surge), Patience(1.0, 2.0))
    return Fleet(tmp_path), wish, SECOND


def pairs(tmp_path, *replicas, **wanted):
    found = places(*parts(tmp_path, *replicas, **wanted))
    return [(each.old.id, each.old.version, each.new.id, each.new.version) for each in found]


def test_a_surge_takes_new_names_and_in_place_the_same(tmp_path):
    both = [("api-1", ""), ("api-2", "")]
    assert pairs(tmp_path, *both) == [
        ("api-1", "", "api-1.2", "2"),
        ("api-2", "", "api-2.2", "2"),
    ]
    assert pairs(tmp_path, *both, surge=False) == [
        ("api-1", "", "api-1", "2"),
        ("api-2", "", "api-2", "2"),
    ]


def test_each_surge_counts_on(tmp_path):
    assert pairs(tmp_path, ("api-1.9", "1")) == [("api-1.9", "1", "api-1.10", "2")]


def test_what_an_upgrade_that_was_cut_off_left_is_paired_again(tmp_path):
    found = pairs(tmp_path, ("api-1.2", "2"), ("api-2", ""), ("api-2.2", "2"), ("api-3", ""))
    # The first is done; the second has both running; the third was not begun.
    assert found == [("api-2", "", "api-2.2", "2"), ("api-3", "", "api-3.2", "2")]


def test_a_service_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FleetError, match="no service 'dinner'; there are api"):
        pairs(tmp_path, ("api-1", ""), service="dinner")


def test_what_is_of_the_version_already_is_not_forgotten(tmp_path):
    mixed = parts(tmp_path, ("api-1.2", "2"), ("api-2", ""), ("api-2.2", "2"), ("api-3", ""))
    assert [each.id for each in upgraded(*mixed)] == ["api-1.2"]
    in_place = parts(tmp_path, ("api-1", "2"), ("api-2", ""), surge=False)
    assert [each.id for each in upgraded(*in_place)] == ["api-1"]
