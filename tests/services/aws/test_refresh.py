"""Instance refreshes; moto has none, so AWS's part is played by tests/support/awsfront.py."""

import itertools

import pytest

from shoal_gateway.aws import clients
from shoal_gateway.aws.errors import AwsError
from shoal_gateway.aws.refresh import Refreshes, Undo, Wish


@pytest.fixture
def refreshes(account, refreshing):
    account.group("g", 2, fleet="blue", role="services")
    ticks = itertools.count()
    return Refreshes(
        "g",
        clients.client("autoscaling"),
        clock=lambda: float(next(ticks)),
        sleep=lambda _: None,
    )


def follow(refreshes, refresh, deadline=100.0):
    seen = []
    return refreshes.follow(
        refresh, lambda now: seen.append((now.status, now.percent)), deadline
    ), seen


def test_a_refresh_is_followed_to_its_end(refreshes, refreshing):
    end, seen = follow(refreshes, refreshes.start(Wish()))
    assert (end.good, end.over, end.percent) == (True, True, 100)
    assert seen == [("InProgress", 0), ("InProgress", 40), ("InProgress", 80), ("Successful", 100)]
    (asked,) = refreshing.started
    assert asked["Preferences.MinHealthyPercentage"] == "90"
    assert asked["Preferences.SkipMatching"] == "true"
    assert asked["Preferences.AutoRollback"] == "false"
    assert not [key for key in asked if key.startswith("Desired")]


def test_a_wish_reaches_aws(refreshes, refreshing, moto):
    follow(refreshes, refreshes.start(Wish("12", 66, 150, 30, skip_matching=False)))
    (group,) = moto.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    (asked,) = refreshing.started
    assert {key: value for key, value in asked.items() if "." in key} == {
        "Preferences.MinHealthyPercentage": "66",
        "Preferences.MaxHealthyPercentage": "150",
        "Preferences.InstanceWarmup": "30",
        "Preferences.SkipMatching": "false",
        # AWS goes back by itself where it knows to what.
        "Preferences.AutoRollback": "true",
        "DesiredConfiguration.LaunchTemplate.Version": "12",
        "DesiredConfiguration.LaunchTemplate.LaunchTemplateId": group["LaunchTemplate"][
            "LaunchTemplateId"
        ],
    }


def test_one_that_fails_says_why(refreshes, refreshing):
    refreshing.end = "Failed"
    end, _ = follow(refreshes, refreshes.start(Wish()))
    assert (end.good, end.over, end.reason) == (False, True, "instances are unwell")


def test_one_that_runs_already_is_taken_up(refreshes, refreshing):
    first = refreshes.start(Wish("3"))
    assert refreshes.start(Wish("3")).id == first.id
    assert len(refreshing.started) == 1
    with pytest.raises(AwsError, match="being refreshed already, to another end"):
        refreshes.start(Wish("4"))


def test_one_without_an_end_is_not_waited_for(refreshes, refreshing):
    refreshing.step = 0
    with pytest.raises(TimeoutError, match="InProgress at 0 % after 10 s"):
        follow(refreshes, refreshes.start(Wish()), 10.0)


@pytest.mark.parametrize(
    ("how", "template", "end"),
    [
        (Undo.CANCEL, "", "Cancelled"),
        (Undo.CANCEL, "3", "Cancelled"),
        (Undo.ROLLBACK, "3", "RollbackSuccessful"),
        (Undo.LEAVE, "", "Successful"),
    ],
)
def test_one_is_called_off_as_wished(refreshes, refreshing, how, template, end):
    off = refreshes.undo(refreshes.start(Wish(template)), how)
    assert follow(refreshes, off)[0].status == end


def test_one_that_is_over_is_not_called_off(refreshes):
    end, _ = follow(refreshes, refreshes.start(Wish()))
    assert refreshes.undo(end, Undo.CANCEL) == end


def test_a_rollback_to_nothing_is_refused_by_aws_and_said(refreshes):
    with pytest.raises(AwsError, match="can't be called off: no desired configuration"):
        refreshes.undo(refreshes.start(Wish()), Undo.ROLLBACK)
