"""The failure experiment's EC2 mode against moto: whom it hits, whom never, and what it notes."""

import json
import random
import signal

import pytest

from shoal_gateway.aws.errors import AwsError
from shoal_gateway.aws.instances import Ec2Fleet
from shoal_gateway.cli.app import run
from shoal_gateway.experiments import instances
from shoal_gateway.experiments.instances import Ec2Breaker
from tests.support.awsfront import RefusedError, front
from tests.support.ec2 import Account

__all__ = ["front"]

CHANGES = {
    "StopInstances",
    "StartInstances",
    "TerminateInstances",
    "TerminateInstanceInAutoScalingGroup",
}


@pytest.fixture
def account(moto, monkeypatch):
    monkeypatch.setattr(instances, "LOOK", 0.01)
    return Account(moto)


@pytest.fixture
def shoal(front, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHOAL_ZOOKEEPER", raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def type_(*arguments):
        code = run(["experiment", "instances", "--name", "blue", "--out", "out", *arguments])
        return code, capsys.readouterr()

    yield type_
    signal.signal(signal.SIGTERM, before)


def touched(front):
    """Ids of instances that something was done to."""
    found = set()
    for action in CHANGES:
        for asked in front.calls[action]:
            found |= {value for key, value in asked.items() if key.startswith("InstanceId")}
    return found


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").open()]


def test_faults_hit_only_the_fleet_and_are_written_down(account, front, shoal, tmp_path):
    ours = account.group("g", 3, fleet="blue", role="services")
    strangers = account.group("other", 3, fleet="green", role="services")
    strangers += account.instances(3)
    strangers += account.instances(2, fleet="blue", role="zookeeper")
    options = ["--faults", "6", "--seconds", "1", "--down", "0.05", "--seed", "3", "--yes"]
    code, said = shoal("--kind", "stop", "--kind", "terminate", *options)
    assert code == 0, said.err
    hit = touched(front)
    # Those that took a victim's place may be victims too.
    assert hit & set(ours)
    assert hit <= {*ours, *account.ever(fleet="blue", role="services")}
    assert not hit & set(strangers)
    assert {account.state(each) for each in strangers} == {"running"}
    assert len(account.members("g")) == 3
    found = lines(tmp_path)
    faults = [line for line in found if line["kind"] == "fault"]
    assert [line["number"] for line in faults] == [1, 2, 3, 4, 5, 6]
    assert sum("stopped" in line["what"] for line in faults) == 3
    assert sum("terminated" in line["what"] for line in faults) == 3
    assert [line["what"] for line in found if line["kind"] == "recovered"] == [
        line["what"] for line in faults
    ]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["victims"]) == hit
    assert len(report["events"]) == 6
    assert report["problems"] == []


def test_a_dry_run_says_what_would_be_done_and_does_nothing(account, front, shoal, tmp_path):
    members = account.group("g", 3, fleet="blue", role="services")
    account.instances(3, fleet="green", role="services")
    options = ["--kind", "stop", "--kind", "terminate", "--faults", "4", "--seed", "7", "--dry-run"]
    code, said = shoal(*options)
    assert code == 0, said.err
    plan = said.out.splitlines()
    assert len(plan) == 4
    for line in plan:
        assert any(each in line for each in members)
    assert not CHANGES & {action for action, count in front.count.items() if count}
    assert not (tmp_path / "out").exists()
    # The same seed, the same plan; another seed, another.
    assert shoal(*options)[1].out == said.out
    options[options.index("7")] = "8"
    assert shoal(*options)[1].out != said.out


def test_the_seed_chooses_the_victims(account, front):
    account.instances(9, fleet="blue", role="services")
    fleet = Ec2Fleet.open("blue")

    def chosen(seed):
        breaker = Ec2Breaker(fleet, "services", random.Random(seed), patience=5.0)
        return [breaker.choose("stop").id for _ in range(6)]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def test_a_victim_that_lost_its_tag_is_left_alone(account, front, monkeypatch):
    account.instances(2, fleet="blue", role="services")
    fleet = Ec2Fleet.open("blue")
    breaker = Ec2Breaker(fleet, "services", random.Random(1), patience=5.0)
    victim = breaker.choose("stop")
    account.ec2.create_tags(Resources=[victim.id], Tags=[{"Key": "shoal:fleet", "Value": "green"}])
    # As if the tag had changed between the choice and the deed.
    monkeypatch.setattr(breaker, "choose", lambda _: victim)
    with pytest.raises(AwsError, match="is not of fleet 'blue'"), breaker.stopped():
        pass
    assert touched(front) == set()


def test_an_instance_without_group_is_started_again(account, front):
    account.instances(2, fleet="blue", role="services")
    breaker = Ec2Breaker(Ec2Fleet.open("blue"), "services", random.Random(1), patience=30.0)
    with breaker.stopped() as what:
        (victim,) = breaker.victims
        assert what == f"{victim} (eu-central-1a) stopped"
        assert account.state(victim) == "stopped"
    assert account.state(victim) == "running"


def test_a_stopped_instance_that_its_group_replaced_is_not_missed(account, front):
    account.group("g", 2, fleet="blue", role="services")
    breaker = Ec2Breaker(Ec2Fleet.open("blue"), "services", random.Random(1), patience=30.0)
    with breaker.stopped():
        (victim,) = breaker.victims
        account.autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=victim, ShouldDecrementDesiredCapacity=False
        )
    assert account.state(victim) == "terminated"
    assert touched(front) == {victim}
    assert front.count["StartInstances"] == 0


def test_what_is_stopped_can_be_started(account, front):
    one, _ = account.instances(2, fleet="blue", role="services")
    breaker = Ec2Breaker(Ec2Fleet.open("blue"), "services", random.Random(1), patience=30.0)
    with pytest.raises(AwsError, match="none can be started"):
        breaker.choose("start")
    account.ec2.stop_instances(InstanceIds=[one])
    with breaker.started():
        pass
    assert account.state(one) == "running"


def test_the_last_one_and_one_that_nobody_replaces_stay(account, front):
    account.instances(1, fleet="blue", role="services")
    breaker = Ec2Breaker(Ec2Fleet.open("blue"), "services", random.Random(1), patience=5.0)
    with pytest.raises(AwsError, match=r"1 instances .* run, and one has to stay"):
        breaker.choose("stop")
    account.instances(1, fleet="blue", role="services")
    with pytest.raises(AwsError, match=r"no instance .* is in an autoscaling group"):
        breaker.choose("terminate")
    assert touched(front) == set()


def test_a_fleet_that_stays_broken_fails_the_run(account, front, shoal, tmp_path, monkeypatch):
    account.group("g", 2, fleet="blue", role="services")
    monkeypatch.setattr(Ec2Fleet, "whole", lambda *_: False)
    options = ["--faults", "1", "--seconds", "1", "--down", "0", "--patience", "1", "--yes"]
    code, said = shoal(*options)
    assert code == 1
    assert "it is still not so that group g is whole again" in " ".join(said.err.split())


def test_what_stays_stopped_is_said(account, front, shoal):
    ours = account.instances(2, fleet="blue", role="services")
    front.failing["StartInstances"] = [RefusedError("UnauthorizedOperation", "no", 403)]
    code, said = shoal("--faults", "1", "--seconds", "1", "--down", "0", "--patience", "1", "--yes")
    assert code == 1
    (down,) = [each for each in ours if account.state(each) == "stopped"]
    told = " ".join(said.err.split())
    assert f"{down} stays stopped: aws ec2 start-instances --instance-ids {down}" in told


def test_it_asks_first(account, front, shoal):
    account.group("g", 2, fleet="blue", role="services")
    code, said = shoal("--faults", "1")
    assert code == 1
    assert "Nobody can be asked here; say --yes" in " ".join(said.err.split())
    code, said = shoal("--faults", "1", "--jobs", "5", "--yes")
    assert (code, "--zookeeper HOSTS/CHROOT" in " ".join(said.err.split())) == (1, True)
    assert touched(front) == set()
