"""The units as shipped, under a real systemd: jobs outlive the app manager of their unit."""

import os

import pytest

from shoal_gateway.client import Gateway, state_name
from tests.support.machine import Machine, missing
from tests.support.waiting import eventually

MANAGER = "shoal-appmanager@local.service"
SERVICES = ["shoal-registry.service", "shoal-api.service", "shoal-scheduler.service", MANAGER]
DEADLINE = 60.0
# Seconds without a sign of life; shorter than the unit's, longer than a busy machine stands still.
WATCHDOG = 6


@pytest.fixture
def machine(tmp_path, chroot):
    if why := missing():
        pytest.skip(why)
    common = {
        "ZOOKEEPER": chroot,
        "ADVERTISE": "auto",
        "BIND": "127.0.0.1:0",
        "OBJECTS": "file:///var/lib/shoal/objects",
        "TEST_RUN": os.environ["SHOAL_TEST_RUN"],
    }
    settings = {
        "shoal.env": "".join(f"SHOAL_{name}={value}\n" for name, value in common.items()),
        "registry.env": "SHOAL_STORE=sqlite:////var/lib/shoal/registry.db\n",
        "api.env": "SHOAL_CATALOGUE=/etc/shoal/catalogue\n",
        "appmanager-local.env": "SHOAL_LEASE=30\nSHOAL_SLOTS=2\n",
    }
    made = Machine(tmp_path, SERVICES, settings, watchdog=WATCHDOG)
    try:
        made.__enter__()
    except OSError as error:
        pytest.skip(str(error))
    try:
        yield made
    finally:
        made.__exit__()


def active(machine, unit):
    return machine.show(unit, "SubState") == "running"


def test_jobs_outlive_restarts_and_the_watchdogs_kill_of_their_manager(
    machine, chroot, directories
):
    for unit in SERVICES:
        eventually(lambda unit=unit: active(machine, unit), DEADLINE, f"a running {unit}")
    gateway = Gateway(directories(), "ada")
    job_id = gateway.submit("nap", inputs={}, parameters={"seconds": "15"}).id

    def job():
        return gateway.get(job_id).job

    eventually(lambda: state_name(job().state) == "RUNNING", DEADLINE, "a running job")
    (attempt,) = job().attempts

    # An upgrade, say.
    before = machine.show(MANAGER, "MainPID")
    machine.systemctl("restart", MANAGER)
    assert machine.show(MANAGER, "MainPID") != before
    assert active(machine, MANAGER)

    # It stands still: systemd ends it, and starts another one.
    restarts = int(machine.show(MANAGER, "NRestarts"))
    machine.systemctl("kill", "--kill-whom=main", "--signal=STOP", MANAGER)
    eventually(
        lambda: int(machine.show(MANAGER, "NRestarts")) > restarts and active(machine, MANAGER),
        DEADLINE,
        "another manager",
    )
    assert "Watchdog timeout" in machine.journal()
    eventually(lambda: state_name(job().state) == "SUCCEEDED", DEADLINE, "its success")
    (same,) = job().attempts
    assert (same.number, same.runner_id) == (1, attempt.runner_id)

    # Told to stop, all drain and end well.
    machine.systemctl("stop", *SERVICES)
    assert {machine.show(unit, "Result") for unit in SERVICES} == {"success"}
