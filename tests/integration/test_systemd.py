"""systemd's units: real services told by a real socket, and units whose commands are read."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.drains import longest
from tests.support.hosts import hosts
from tests.support.notified import LIMIT, Manager
from tests.support.programs import read

__all__ = ["hosts"]

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
SERVICES = {
    "registry": "shoal-registry.service",
    "api": "shoal-api.service",
    "scheduler": "shoal-scheduler.service",
    "appmanager": "shoal-appmanager@.service",
}
FLAVOR = "local"


@pytest.fixture
def manager():
    made = Manager()
    yield made
    made.close()


def start(hosts, service, monkeypatch, manager):
    """A real replica whose manager is the test."""
    with monkeypatch.context() as patch:
        for name, value in manager.environment().items():
            patch.setenv(name, value)
        return hosts.manager(1) if service == "appmanager" else hosts.start(service, 2)


@pytest.mark.parametrize("service", ["registry", "api", "scheduler", "appmanager"])
def test_a_service_is_ready_when_announced_lives_and_stops(
    hosts, service, monkeypatch, manager, operator
):
    name = start(hosts, service, monkeypatch, manager)
    node = f"/{hosts.hosts.partition('/')[2]}/services/{service}/{name}"
    manager.awaits("READY=1")
    assert operator.exists(node)
    manager.awaits("WATCHDOG=1")
    hosts.pause(name)
    manager.forgets()
    assert manager.hears(2 * LIMIT) is None
    hosts.resume(name)
    manager.awaits("WATCHDOG=1")
    hosts.processes[name].terminate()
    manager.awaits("STOPPING=1")
    # Said when the drain begins, not when it has ended.
    assert hosts.processes[name].poll() is None
    assert hosts.processes[name].wait(60) == 0


def settings(service):
    """A unit's [Service] section: each key with all its values."""
    found = {}
    section = None
    for line in (UNITS / SERVICES[service]).read_text().splitlines():
        if line.startswith("["):
            section = line
        elif "=" in line and not line.startswith("#") and section == "[Service]":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def seconds(service, key):
    (value,) = settings(service)[key]
    return float(value)


def variables(service):
    """What systemd gives a service, with the example's files in /etc/shoal."""
    found = {}
    for line in settings(service)["Environment"]:
        found |= dict(each.split("=", 1) for each in shlex.split(line))
    for file in settings(service)["EnvironmentFile"]:
        path = UNITS / "etc" / Path(file.lstrip("-")).name.replace("%i", FLAVOR)
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line[:1] not in ("#", "")]
            found |= dict(line.split("=", 1) for line in lines)
        else:
            assert file.startswith("-")
    return {name: value.replace("%i", FLAVOR).replace("%H", "h7") for name, value in found.items()}


@pytest.mark.parametrize("service", SERVICES)
def test_a_units_command_and_settings_are_what_the_program_reads(service):
    (line,) = settings(service)["ExecStart"]
    python, *arguments = shlex.split(line.replace("%i", FLAVOR))
    assert python.startswith("/opt/shoal/")
    module = arguments[arguments.index("-m") + 1]
    assert module == f"shoal_gateway.{service}"
    options = read(service, arguments[arguments.index(module) + 1 :], variables(service))
    assert options["zookeeper"].endswith(":2181/gateway")
    name = f"appmanager-{FLAVOR}" if service == "appmanager" else service
    assert options["id"] == f"{name}-h7"
    assert (options["host"], options["advertise"]) == ("h7", "auto")
    assert options["bind"].startswith("0.0.0.0:740")


@pytest.mark.parametrize("service", SERVICES)
def test_a_unit_restarts_watches_and_stops_later_than_the_drain(service):
    unit = settings(service)
    assert unit["Type"] == ["notify"]
    assert unit["Restart"] == ["always"]
    assert 5.0 <= seconds(service, "WatchdogSec") <= 60.0
    assert seconds(service, "TimeoutStopSec") > longest() + 10.0
    assert unit["User"] == ["shoal"]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["CapabilityBoundingSet"] == [""]


def test_supervisors_outlive_the_manager_of_their_unit():
    unit = settings("appmanager")
    assert unit["KillMode"] == ["process"]
    # One job's hunger is not the end of all; and what jobs have in /tmp stays when it stops.
    assert unit["OOMPolicy"] == ["continue"]
    assert "PrivateTmp" not in unit
    assert "RuntimeDirectory" not in unit


def test_systemd_takes_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    for name in SERVICES.values():
        text = (UNITS / name).read_text()
        # systemd asks whether the program is there; /opt/shoal is not on this machine.
        text = re.sub(r"/opt/shoal/\S+/python", sys.executable, text)
        (tmp_path / name.replace("@.", f"@{FLAVOR}.")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if "shoal" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
