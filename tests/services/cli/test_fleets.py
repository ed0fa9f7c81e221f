"""Two commands about one fleet at once; which fleets have a page from the start."""

import json
from contextlib import contextmanager

import pytest

from shoal_gateway.cli import codes
from shoal_gateway.fleet import Fleet
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


@pytest.mark.parametrize(
    ("options", "served"),
    [
        ([], True),
        (["--no-dashboard"], False),
        (["--users", "required"], False),
        (["--tls"], False),
        (["--users", "required", "--dashboard"], True),
    ],
)
def test_what_callers_must_show_a_token_for_is_on_no_page_unless_told(
    shoal, monkeypatch, options, served
):
    def up(_fleet, *, tls, **_settings):
        return FleetState(zookeeper="127.0.0.1:1/gateway", certificates="certs" if tls else "")

    monkeypatch.setattr(Fleet, "up", up)
    monkeypatch.setattr(Fleet, "start_dashboard", lambda _: "http://127.0.0.1:8470/")
    told = json.loads(shoal("up", *options, "--json").out)["dashboard"]
    assert told == ("http://127.0.0.1:8470/" if served else None)
    assert ("No dashboard:" in shoal("up", *options).out) == (
        not served and options[0] != "--no-dashboard"
    )
