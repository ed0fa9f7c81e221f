"""Replaces the instances of an autoscaling group by an instance refresh, and follows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shoal_gateway.aws import clients
from shoal_gateway.aws.errors import AwsError

# Seconds between looks.
LOOK = 5.0

_GOING = frozenset(
    {"Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress"},
)
# Those can be called off.
_ACTIVE = frozenset({"Pending", "InProgress", "Baking"})


class Undo(StrEnum):
    """What becomes of a refresh that is to go no further."""

    ROLLBACK = "rollback"
    CANCEL = "cancel"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Wish:
    """How a group is to be refreshed.

    Attributes:
        template: Version of its launch template, a number; empty: instances are made as the group
            says already, and there is nothing that a rollback could lead to.
        min_healthy: Per cent of the group that stay in service.
        max_healthy: Per cent that there may be at most; None: new instances replace old ones.
        warmup: Seconds that a new instance in service is watched; None: the group's own.
        skip_matching: Instances that are as wanted stay.
    """

    template: str = ""
    min_healthy: int = 90
    max_healthy: int | None = None
    warmup: int | None = None
    skip_matching: bool = True

    def preferences(self) -> dict[str, Any]:
        """As AWS wants it."""
        made: dict[str, Any] = {
            "MinHealthyPercentage": self.min_healthy,
            "SkipMatching": self.skip_matching,
            # AWS itself goes back when instances do not become healthy, where it knows to what.
            "AutoRollback": bool(self.template),
        }
        if self.max_healthy is not None:
            made["MaxHealthyPercentage"] = self.max_healthy
        if self.warmup is not None:
            made["InstanceWarmup"] = self.warmup
        return made


@dataclass(frozen=True, slots=True)
class Refresh:
    """How a refresh stands.

    Attributes:
        group: Whose.
        id: AWS's.
        status: AWS's word: "InProgress", "Successful".
        percent: Done.
        left: Instances to go.
        reason: What AWS says of it; often empty.
        template: Version of the launch template that was asked for; empty: none was.
    """

    group: str
    id: str
    status: str
    percent: int = 0
    left: int = 0
    reason: str = ""
    template: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing happens any more."""
        return self.status not in _GOING

    @property
    def good(self) -> bool:
        """Whether the group is as it was wished."""
        return self.status == "Successful"


class Refreshes:
    """The refreshes of one group.

    Args:
        group: Its name.
        autoscaling: A client of autoscaling.
        clock: Monotonic seconds.
        sleep: Waits.
    """

    def __init__(
        self,
        group: str,
        autoscaling: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._group = group
        self._autoscaling = autoscaling
        self._clock = clock
        self._sleep = sleep

    def start(self, wish: Wish) -> Refresh:
        """Starts a refresh, or takes up the one that runs if it is to the same end.

        Raises:
            AwsError: AWS refuses, or another one runs.
        """
        more: dict[str, Any] = {}
        if wish.template:
            more["DesiredConfiguration"] = {"LaunchTemplate": self._template(wish.template)}
        try:
            with clients.spoken(f"group {self._group} can't be refreshed"):
                begun = self._autoscaling.start_instance_refresh(
                    AutoScalingGroupName=self._group,
                    Strategy="Rolling",
                    Preferences=wish.preferences(),
                    **more,
                )
        except AwsError as error:
            if error.code != "InstanceRefreshInProgress":
                raise
            running = self.look()
            if running.over or running.template != wish.template:
                raise AwsError(
                    f"group {self._group} is being refreshed already, to another end:"
                    f" {running.id} to template version {running.template or 'of the group'}; wait"
                    " for it, or end it with `aws autoscaling cancel-instance-refresh`",
                    error.code,
                ) from error
            return running
        return self.look(begun["InstanceRefreshId"])

    def look(self, id_: str = "") -> Refresh:
        """How a refresh stands; the latest without an id.

        Raises:
            AwsError: there is none, or AWS does not say.
        """
        wanted = {"InstanceRefreshIds": [id_]} if id_ else {"MaxRecords": 1}
        with clients.spoken(f"the refresh of group {self._group} can't be looked at"):
            answer = self._autoscaling.describe_instance_refreshes(
                AutoScalingGroupName=self._group, **wanted
            )
        if not answer["InstanceRefreshes"]:
            raise AwsError(f"group {self._group} has no refresh {id_}".rstrip())
        return _refresh(answer["InstanceRefreshes"][0])

    def follow(
        self, refresh: Refresh, tell: Callable[[Refresh], object], deadline: float
    ) -> Refresh:
        """Waits until a refresh is over; how it then stands.

        Args:
            refresh: Which.
            tell: Is told how it stands, at each look.
            deadline: Seconds until it has to be over.

        Raises:
            TimeoutError: it is not.
            AwsError: AWS does not say.
        """
        until = self._clock() + deadline
        while True:
            tell(refresh)
            if refresh.over:
                return refresh
            if self._clock() > until:
                raise TimeoutError(
                    f"the refresh of group {self._group} is {refresh.status} at"
                    f" {refresh.percent} % after {deadline:g} s"
                )
            self._sleep(LOOK)
            refresh = self.look(refresh.id)

    def undo(self, refresh: Refresh, how: Undo) -> Refresh:
        """Calls a refresh off; how it stands then. One that is over stays as it is.

        Raises:
            AwsError: AWS refuses.
        """
        now = self.look(refresh.id)
        if how is Undo.LEAVE or now.status not in _ACTIVE:
            return now
        call = (
            self._autoscaling.rollback_instance_refresh
            if how is Undo.ROLLBACK
            else self._autoscaling.cancel_instance_refresh
        )
        with clients.spoken(f"the refresh of group {self._group} can't be called off"):
            call(AutoScalingGroupName=self._group)
        return self.look(refresh.id)

    def _template(self, version: str) -> dict[str, str]:
        """The group's own launch template in another version."""
        with clients.spoken(f"group {self._group} can't be looked at"):
            answer = self._autoscaling.describe_auto_scaling_groups(
                AutoScalingGroupNames=[self._group]
            )
        for group in answer["AutoScalingGroups"]:
            mine = group.get("LaunchTemplate")
            if mine:
                return {"LaunchTemplateId": mine["LaunchTemplateId"], "Version": version}
        raise AwsError(
            f"group {self._group} has no launch template of its own, so it can't be refreshed to a"
            " version of one; leave --to out"
        )


def _refresh(described: Mapping[str, Any]) -> Refresh:
    desired = described.get("DesiredConfiguration", {}).get("LaunchTemplate", {})
    return Refresh(
        group=described["AutoScalingGroupName"],
        id=described["InstanceRefreshId"],
        status=described["Status"],
        percent=described.get("PercentageComplete", 0),
        left=described.get("InstancesToUpdate", 0),
        reason=described.get("StatusReason", ""),
        template=desired.get("Version", ""),
    )
