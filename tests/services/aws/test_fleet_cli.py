"""``shoal fleet`` as a user types it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoal import Replica, Status
from shoal_gateway.aws import refresh as refreshes
from shoal_gateway.aws.instances import Instance
from shoal_gateway.cli.app import run
from shoal_gateway.cli.instances import on_hosts
from tests.support.awsfront import RefusedError
from tests.support.waiting import eventually

SHOAL = Path(sys.executable).with_name("shoal")


@pytest.fixture
def shoal(front, tmp_path, monkeypatch, capsys):
    """Runs a command in this process: its exit code, what it printed, and what it complained of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(refreshes, "LOOK", 0.01)
    for name in ("SHOAL_FLEET_NAME", "SHOAL_ZOOKEEPER"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def type_(*arguments):
        code = run(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    yield type_
    signal.signal(signal.SIGTERM, before)


def test_list_shows_a_fleet_or_all(account, shoal):
    (one,) = account.instances(fleet="blue", role="services")
    (other,) = account.instances(fleet="green", role="zookeeper")
    code, out, _ = shoal("fleet", "list", "--name", "blue")
    assert code == 0
    assert one in out
    assert other not in out
    _, out, _ = shoal("fleet", "list", "--json")
    found = json.loads(out)
    assert [(each["id"], each["role"], each["replicas"]) for each in found["instances"]] == [
        (one, "services", None),
        (other, "zookeeper", None),
    ]
    _, out, _ = shoal("fleet", "list", "--role", "zookeeper", "--json")
    assert [each["id"] for each in json.loads(out)["instances"]] == [other]


def test_list_joins_what_the_directory_says(account, shoal, chroot, directories):
    members = account.group("g", 2, fleet="blue", role="services")
    directory = directories()
    for port, host in enumerate((members[0], "somewhere"), start=1):
        id_ = f"registry-{port}"
        replica = Replica(id_, "127.0.0.1", port, version="1.2.3", host=host)
        directory.announce("registry", replica)
    eventually(lambda: len(directory.watch("registry").replicas()) == 2)
    code, out, _ = shoal("fleet", "list", "-n", "blue", "--zk", chroot, "--json")
    assert code == 0
    found = json.loads(out)
    hosted = {each["id"]: each["replicas"] for each in found["instances"]}
    (replica,) = hosted[members[0]]
    assert (replica["id"], replica["version"], replica["status"]) == (
        "registry-1",
        "1.2.3",
        "UP",
    )
    assert hosted[members[1]] == []
    assert [each["id"] for each in found["elsewhere"]] == ["registry-2"]
    assert found["directory"].startswith("connected")
    _, out, complained = shoal("--zookeeper", chroot, "fleet", "list", "-n", "blue")
    assert "registry 1.2.3 UP" in out
    assert "registry-2 on somewhere" in complained


def test_replicas_are_joined_by_host_or_address():
    instance = Instance("i-1", "blue", "services", "running", "a", "10.0.0.1", "t3.small", 0.0)
    by_host = Replica("a", "10.9.9.9", 1, host="i-1")
    by_address = Replica("b", "10.0.0.1", 2, host="ip-10-0-0-1", status=Status.DRAINING)
    stranger = Replica("c", "10.0.0.2", 3, host="i-2")
    hosted, elsewhere = on_hosts(
        [instance], [("api", by_host), ("registry", by_address), ("api", stranger)]
    )
    assert hosted == {"i-1": [("api", by_host), ("registry", by_address)]}
    assert elsewhere == [("api", stranger)]


def test_restart_instance(account, front, shoal):
    (one,) = account.instances(fleet="blue", role="services")
    code, out, _ = shoal("fleet", "restart-instance", one, "--name", "blue")
    assert (code, out.strip()) == (0, f"{one} is restarted")
    (sent,) = front.calls["SendCommand"]
    assert sent["InstanceIds"] == [one]
    account.ec2.stop_instances(InstanceIds=[one])
    code, _, complained = shoal("fleet", "restart-instance", one, "--name", "blue")
    assert code == 1
    assert "is stopped; only what runs can be restarted" in complained


@pytest.mark.parametrize("command", ["restart-instance", "terminate-instance"])
def test_a_strangers_instance_is_refused(account, front, shoal, command):
    (stranger,) = account.instances(fleet="green", role="services")
    more = ["--yes"] if command == "terminate-instance" else []
    code, _, complained = shoal("fleet", command, stranger, "--name", "blue", *more)
    assert code == 1
    assert "is not of fleet 'blue' and is left alone" in " ".join(complained.split())
    assert account.state(stranger) == "running"
    assert front.count["SendCommand"] == 0


def test_terminate_instance_asks_first(account, shoal, monkeypatch):
    one, _ = account.group("g", 2, fleet="blue", role="services")
    code, _, complained = shoal("fleet", "terminate-instance", one, "-n", "blue")
    assert code == 1
    assert "Nobody can be asked here; say --yes" in " ".join(complained.split())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    asked = []
    monkeypatch.setattr("typer.confirm", lambda question, abort: asked.append(question) or _abort())
    assert shoal("fleet", "terminate-instance", one, "-n", "blue")[0] != 0
    (question,) = asked
    assert one in question
    assert "Group g starts another" in question
    assert one in account.members("g")


def _abort():
    import typer

    raise typer.Abort


def test_terminate_instance(account, shoal):
    one, two, three = account.group("g", 3, fleet="blue", role="services")
    code, out, _ = shoal("fleet", "terminate-instance", one, "-n", "blue", "--yes")
    assert code == 0
    assert "group g starts another" in out
    assert len(account.members("g")) == 3
    shoal("fleet", "terminate-instance", two, "-n", "blue", "--yes", "--shrink")
    assert len(account.members("g")) == 2
    assert three in account.members("g")
    code, out, _ = shoal("fleet", "terminate-instance", one, "-n", "blue")
    assert (code, "already" in out) == (0, True)
    (lone,) = account.instances(fleet="blue")
    code, _, complained = shoal("fleet", "terminate-instance", lone, "-n", "blue", "-y", "--shrink")
    assert (code, "no autoscaling group that could shrink" in complained) == (1, True)


def test_the_name_may_come_from_the_environment(account, shoal, monkeypatch):
    (one,) = account.instances(fleet="blue")
    monkeypatch.setenv("SHOAL_FLEET_NAME", "blue")
    assert shoal("fleet", "terminate-instance", one, "--yes")[0] == 0


def test_upgrade_goes_group_by_group(account, refreshing, shoal):
    for name in ("b", "a"):
        account.group(name, 1, fleet="blue", role="services")
    account.group("keepers", 1, fleet="blue", role="zookeeper")
    code, out, _ = shoal("fleet", "upgrade", "-n", "blue", "--to", "3", "--json")
    assert code == 0
    assert [(each["group"], each["status"], each["template"]) for each in json.loads(out)] == [
        ("a", "Successful", "3"),
        ("b", "Successful", "3"),
    ]
    assert [each["AutoScalingGroupName"] for each in refreshing.started] == ["a", "b"]


def test_upgrade_stops_at_a_group_that_fails(account, refreshing, shoal):
    for name in ("a", "b"):
        account.group(name, 1, fleet="blue", role="services")
    refreshing.end = "Failed"
    code, out, _ = shoal("fleet", "upgrade", "-n", "blue")
    assert code == 1
    assert "Failed at 100 %: instances are unwell" in " ".join(out.split())
    assert len(refreshing.started) == 1


def test_upgrade_is_undone_after_its_deadline(account, refreshing, shoal):
    account.group("a", 1, fleet="blue", role="services")
    refreshing.step = 0
    command = ["fleet", "upgrade", "-n", "blue", "--deadline", "1"]
    code, out, _ = shoal(*command, "--to", "2")
    assert (code, "RollbackSuccessful" in out) == (1, True)
    code, out, _ = shoal(*command)
    assert (code, "Cancelled" in out) == (1, True)
    code, out, _ = shoal(*command, "--undo", "leave")
    assert (code, "is InProgress" in out) == (4, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "$Latest"], "is a number"),
        (["--undo", "rollback"], "nothing to roll back to"),
        (["--interrupted", "rollback"], "nothing to roll back to"),
        ([], "has no autoscaling group of role 'services'"),
    ],
)
def test_an_upgrade_that_makes_no_sense_is_refused(account, shoal, arguments, said):
    code, _, complained = shoal("fleet", "upgrade", "-n", "blue", *arguments)
    assert code == 1
    assert said in " ".join(complained.split())


@pytest.mark.parametrize(
    ("choice", "status", "code"),
    [
        (["--interrupted", "cancel"], "Cancelled", 1),
        (["--interrupted", "rollback"], "RollbackSuccessful", 1),
        # Nobody can be asked: it goes on.
        ([], "InProgress", 4),
    ],
)
def test_ctrl_c_leaves_or_undoes_an_upgrade(account, front, refreshing, choice, status, code):
    account.group("a", 1, fleet="blue", role="services")
    refreshing.step = 0
    command = [SHOAL, "fleet", "upgrade", "-n", "blue", "--to", "2", *choice]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            eventually(lambda: refreshing.started and refreshing.status("a") == "InProgress")
            # It is in its wait when it has had the answer; there is no event of that.
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            out, complained = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, complained
    assert f"is {status} at 0 %" in " ".join(out.split())
    assert refreshing.status("a") == status


def test_shut_doors_are_said(front, shoal):
    front.failing["DescribeInstances"] = [RefusedError("UnauthorizedOperation", "no", 403)]
    code, _, complained = shoal("fleet", "list", "-n", "blue")
    assert code == 1
    assert "the instances of fleet 'blue' can't be listed: access denied" in " ".join(
        complained.split()
    )


def test_without_boto3_the_extra_is_named(shoal, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    code, _, complained = shoal("fleet", "list")
    assert code == 1
    assert "pip install 'shoal[aws]'" in complained


@pytest.mark.parametrize("command", ["list", "restart-instance", "terminate-instance", "upgrade"])
def test_help_has_examples(shoal, command):
    _, out, _ = shoal("fleet", command, "--help")
    assert f"Examples:  shoal fleet {command}" in out
