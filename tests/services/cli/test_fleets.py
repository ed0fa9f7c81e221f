"""Two commands about one fleet at once."""

from contextlib import contextmanager

from shoal_gateway.cli import codes
from shoal_gateway.fleet.state import FleetState, StateFile


def test_of_two_ups_at_once_the_later_leaves_the_fleet_of_the_earlier_alone(
    shoal, monkeypatch, tmp_path
):
    earlier = FleetState(zookeeper="127.0.0.1:1/gateway")
    free = StateFile.locked

    @contextmanager
    def locked(self):
        # The earlier command has the lock first.
        if self.read() is None:
            self.write(earlier)
        with free(self):
            yield

    monkeypatch.setattr(StateFile, "locked", locked)
    assert "already" in shoal("up", code=codes.FAILED).err
    assert StateFile(tmp_path / "fleet").read() == earlier
