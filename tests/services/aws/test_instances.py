"""A fleet's instances by their tags, and the guard before whatever is done to them."""

import pytest

from shoal_gateway.aws import clients, instances
from shoal_gateway.aws.errors import AwsError
from shoal_gateway.aws.instances import Ec2Fleet, find
from tests.support.awsfront import RefusedError


@pytest.fixture
def fleet(front):
    return Ec2Fleet.open("blue")


def test_a_fleet_is_found_by_its_tag_alone(account, fleet):
    ours = account.instances(2, fleet="blue", role="services")
    node = account.instances(zone=1, fleet="blue", role="zookeeper")
    account.instances(fleet="green", role="services")
    account.instances(fleet="bluest")
    account.instances()
    found = fleet.instances()
    assert {each.id for each in found} == {*ours, *node}
    (keeper,) = fleet.instances(role="zookeeper")
    assert (keeper.id, keeper.zone, keeper.state) == (*node, "eu-central-1b", "running")
    assert keeper.address == account.address(keeper.id)
    assert (keeper.kind, keeper.group, keeper.healthy) == ("t3.small", "", None)
    assert keeper.launched > 1e9


def test_all_fleets_can_be_listed(account, front):
    account.instances(fleet="blue")
    account.instances(fleet="green")
    account.instances()
    found = find(clients.client("ec2"), clients.client("autoscaling"))
    assert [each.fleet for each in found] == ["blue", "green"]


def test_instances_know_their_group(account, fleet, monkeypatch):
    monkeypatch.setattr(instances, "_BATCH", 2)
    members = account.group("g", 5, fleet="blue", role="services")
    found = fleet.instances()
    assert sorted(each.id for each in found) == members
    assert {(each.group, each.lifecycle, each.healthy) for each in found} == {
        ("g", "InService", True)
    }


def test_what_has_ended_is_not_listed(account, fleet):
    one, other = account.instances(2, fleet="blue")
    account.ec2.terminate_instances(InstanceIds=[one])
    assert [each.id for each in fleet.instances()] == [other]
    assert fleet.instance(one).state == "terminated"


@pytest.mark.parametrize("name", ["*", "bl?e", "blue*", "", "a b", "-x", "x" * 65])
def test_a_name_that_could_mean_more_than_one_fleet_is_refused(front, name):
    with pytest.raises(ValueError, match="no name of a fleet"):
        Ec2Fleet.open(name)


@pytest.mark.parametrize("tags", [{}, {"fleet": "green"}, {"fleet": "Blue"}, {"Fleet": "blue"}])
@pytest.mark.parametrize("call", ["instance", "terminate", "stop", "start"])
def test_no_instance_of_another_tag_is_touched(account, front, fleet, tags, call):
    (stranger,) = account.instances(**tags)
    (ours,) = account.instances(fleet="blue")
    known = fleet.instance(ours)
    # As if it had lost its tag since it was looked at.
    victim = instances.replace(known, id=stranger)
    front.count.clear()
    with pytest.raises(AwsError, match=r"is not of fleet 'blue' and is left alone"):
        getattr(fleet, call)(stranger if call == "instance" else victim)
    assert account.state(stranger) == "running"
    assert set(front.count) <= {"DescribeInstances", "DescribeAutoScalingInstances"}


def test_an_instance_that_is_not_there_is_said(fleet):
    with pytest.raises(AwsError, match=r"i-0123456789abcdef0 .* does not exist"):
        fleet.instance("i-0123456789abcdef0")
    with pytest.raises(ValueError, match="no id of an instance"):
        fleet.instance("web-1")


def test_a_member_of_a_group_is_terminated_by_it(account, front, fleet):
    one, *_ = account.group("g", 2, fleet="blue")
    fleet.terminate(fleet.instance(one))
    assert front.count["TerminateInstances"] == 0
    assert account.state(one) == "terminated"
    assert len(account.members("g")) == 2
    assert one not in account.members("g")


def test_a_group_can_shrink(account, fleet):
    one, other = account.group("g", 2, fleet="blue")
    fleet.terminate(fleet.instance(one), shrink=True)
    assert account.members("g") == [other]


def test_an_instance_without_group_is_stopped_started_and_terminated(account, fleet):
    (one,) = account.instances(fleet="blue")
    fleet.stop(fleet.instance(one))
    assert account.state(one) == "stopped"
    fleet.start(fleet.instance(one))
    assert account.state(one) == "running"
    fleet.terminate(fleet.instance(one))
    assert account.state(one) == "terminated"


def test_groups_are_those_with_both_tags(account, fleet):
    account.group("b", 0, fleet="blue", role="services")
    account.group("a", 0, fleet="blue", role="services")
    account.group("keepers", 0, fleet="blue", role="zookeeper")
    account.group("other", 0, fleet="green", role="services")
    assert fleet.groups() == ("a", "b")
    assert fleet.groups("zookeeper") == ("keepers",)


def test_throttling_is_waited_out(account, front, fleet):
    (one,) = account.instances(fleet="blue")
    front.failing["DescribeInstances"] = [RefusedError("RequestLimitExceeded", status=503)] * 2
    front.failing["DescribeAutoScalingInstances"] = [RefusedError("Throttling")]
    assert [each.id for each in fleet.instances()] == [one]
    assert front.count["DescribeInstances"] == 3


def test_throttling_without_an_end_is_said(front, monkeypatch):
    # botocore's pauses between tries get longer and longer.
    monkeypatch.setattr(clients, "ATTEMPTS", 2)
    fleet = Ec2Fleet.open("blue")
    front.failing["DescribeInstances"] = [RefusedError("RequestLimitExceeded", status=503)] * 99
    with pytest.raises(AwsError, match="AWS throttles this account") as caught:
        fleet.instances()
    assert front.count["DescribeInstances"] == clients.ATTEMPTS
    assert caught.value.code == "RequestLimitExceeded"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("UnauthorizedOperation", r"access denied.*not authorized to perform ec2"),
        ("AuthFailure", "AWS does not know these credentials"),
        ("ExpiredToken", "the credentials have expired"),
        ("RequestExpired", "the credentials have expired"),
    ],
)
def test_shut_doors_are_said(front, fleet, code, said):
    message = "You are not authorized to perform ec2:DescribeInstances"
    front.failing["DescribeInstances"] = [RefusedError(code, message, 403)]
    with pytest.raises(AwsError, match=rf"the instances of fleet 'blue' can't be listed: {said}"):
        fleet.instances()
    assert front.count["DescribeInstances"] == 1


def test_nobody_to_talk_to_is_said(front, monkeypatch):
    monkeypatch.setattr(clients, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(AwsError, match="Could not connect"):
        Ec2Fleet.open("blue").instances()


def test_no_region_is_said(front, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(AwsError, match="no region is known; set AWS_DEFAULT_REGION"):
        Ec2Fleet.open("blue")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert Ec2Fleet.open("blue").instances() == ()
