"""A whole fleet, shared by the tests that only use one and leave it as it was."""

import pytest

from shoal_gateway.fleet import Fleet


class RunningFleet:
    """A fleet that is up."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.zookeeper = fleet.state.zookeeper

    def target_of(self, service: str) -> str:
        with self.fleet.directory_of() as directory:
            return directory.ready(service, timeout=30.0)[0].target


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    """Three hosts with all services, started once for the whole run."""
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        made.up()
        yield RunningFleet(made)
    finally:
        if made.exists:
            made.down()
