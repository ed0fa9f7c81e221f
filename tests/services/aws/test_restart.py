"""Restarting one instance's units."""

import itertools
import os
import subprocess
from datetime import UTC, datetime

import pytest

from shoal_gateway.aws import clients
from shoal_gateway.aws.errors import AwsError
from shoal_gateway.aws.instances import Ec2Fleet
from shoal_gateway.aws.restart import Restarts, script
from tests.support.awsfront import RefusedError

# What systemctl is to the script: it lists by pattern, writes down what it is asked, and knows a
# unit that does not start again.
SYSTEMCTL = """#!/bin/bash
echo "$*" >>"$CALLS"
case "$1" in
list-units)
  for pattern in "${@:5}"; do for unit in shoal-api.service shoal-registry.service; do
    [[ $unit == $pattern ]] && echo "$unit loaded active running Shoal $unit"
  done; done; true ;;
restart) [ -z "$BROKEN" ] ;;
is-active) echo active ;;
esac
"""


@pytest.fixture
def shell(tmp_path):
    """Runs the commands as SSM's agent does, with a systemctl of the test's own."""
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    calls = tmp_path / "calls"

    def run(*units, broken=""):
        calls.write_text("")
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "BROKEN": broken,
        }
        done = subprocess.run(
            ["sh", "-c", "\n".join(script(units))], env=environment, capture_output=True, text=True
        )
        restarted = [line for line in calls.read_text().splitlines() if line.startswith("restart")]
        return done, restarted

    return run


def test_the_script_restarts_what_matches_and_says_how_it_is(shell):
    done, restarted = shell("shoal-*.service")
    assert done.returncode == 0, done.stderr
    assert restarted == ["restart -- shoal-api.service shoal-registry.service"]
    assert done.stdout == "shoal-api.service active\nshoal-registry.service active\n"
    _, restarted = shell("shoal-api.service", "shoal-x.service")
    assert restarted == ["restart -- shoal-api.service"]


def test_the_script_fails_where_nothing_matches_or_starts(shell):
    done, restarted = shell("shoal-scheduler.service")
    assert (done.returncode, restarted) == (1, [])
    assert "no unit matches shoal-scheduler.service here" in done.stderr
    done, _ = shell("shoal-*.service", broken="1")
    assert done.returncode != 0


@pytest.mark.parametrize("unit", ["sshd.service", "shoal-x; reboot", "$(id)", "", "shoal-a b"])
def test_only_our_units_and_nothing_a_shell_would_understand(unit):
    with pytest.raises(ValueError, match="no unit of Shoal's"):
        script([unit])


@pytest.fixture
def instance(account, front):
    (one,) = account.instances(fleet="blue", role="services")
    return Ec2Fleet.open("blue").instance(one)


@pytest.fixture
def restarts(front):
    ticks = itertools.count()
    return Restarts(clients.client("ssm"), clock=lambda: float(next(ticks)), sleep=lambda _: None)


def answers(front, *statuses, output="", error=""):
    """What SSM says of a command, look by look; the last for ever."""
    left = list(statuses)

    def invocation(_):
        status = left.pop(0) if len(left) > 1 else left[0]
        return {
            "Status": status,
            "StatusDetails": status,
            "StandardOutputContent": output,
            "StandardErrorContent": error,
        }

    front.json["GetCommandInvocation"] = invocation


def test_a_restart_is_told_to_one_instance(front, instance, restarts):
    assert restarts.restart(instance) == ""  # moto runs nothing
    (sent,) = front.calls["SendCommand"]
    assert sent["InstanceIds"] == [instance.id]
    assert sent["DocumentName"] == "AWS-RunShellScript"
    assert sent["Parameters"]["commands"] == script(["shoal-*.service"])
    assert sent["Parameters"]["executionTimeout"] == ["300"]


def test_a_restart_is_waited_for(front, instance, restarts):
    front.failing["GetCommandInvocation"] = [RefusedError("InvocationDoesNotExist")]
    answers(front, "Pending", "InProgress", "Success", output="shoal-api.service active\n")
    assert restarts.restart(instance) == "shoal-api.service active"
    assert front.count["GetCommandInvocation"] == 4


@pytest.mark.parametrize("status", ["Failed", "TimedOut", "Cancelled"])
def test_a_restart_that_fails_is_said_with_its_complaint(front, instance, restarts, status):
    answers(front, "InProgress", status, error="Job for shoal-api.service failed.\n")
    with pytest.raises(AwsError, match=rf"{status} \(command .*\): Job for shoal-api.service"):
        restarts.restart(instance)


def test_a_restart_without_an_end_is_given_up(front, instance, restarts):
    answers(front, "InProgress")
    with pytest.raises(AwsError, match="is still InProgress after 90 s"):
        restarts.restart(instance, timeout=30)


def test_an_instance_that_ssm_does_not_know_is_said(front, instance, restarts):
    front.failing["SendCommand"] = [RefusedError("InvalidInstanceId", "not in a valid state")]
    with pytest.raises(AwsError, match=r"its SSM agent has to run.*not in a valid state"):
        restarts.restart(instance)


def test_ctrl_c_calls_the_command_back(front, instance):
    def interrupted(_):
        raise KeyboardInterrupt

    answers(front, "InProgress")
    front.json["CancelCommand"] = lambda _: {}
    with pytest.raises(KeyboardInterrupt):
        Restarts(clients.client("ssm"), sleep=interrupted).restart(instance)
    (called,) = front.calls["CancelCommand"]
    assert called["InstanceIds"] == [instance.id]


def test_moto_records_the_command_as_it_was_sent(front, moto, instance, restarts):
    restarts.restart(instance, ["shoal-api.service"])
    (command,) = moto.client("ssm").list_commands()["Commands"]
    assert command["Parameters"]["commands"] == script(["shoal-api.service"])
    assert command["ExpiresAfter"] > datetime.now(UTC)
