"""The instances of a fleet in EC2, found by their tags, and what may be done to them.

Whatever is changed here is looked at once more just before: an instance without exactly the fleet's
tag is left alone. The policy of whoever calls should say so too (``aws:ResourceTag/shoal:fleet``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shoal_gateway.aws import clients
from shoal_gateway.aws.errors import AwsError

FLEET_TAG, ROLE_TAG = "shoal:fleet", "shoal:role"
# What hosts are for, as the Terraform modules tag them.
SERVICES_ROLE, ZOOKEEPER_ROLE = "services", "zookeeper"
LIVE = ("pending", "running", "stopping", "stopped")
# So many are described at once by autoscaling.
_BATCH = 50

# EC2's filters understand * and ?; a fleet's name is neither.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance.

    Attributes:
        id: "i-0123456789abcdef0".
        fleet: Of tag ``shoal:fleet``.
        role: Of tag ``shoal:role``: "services", "zookeeper".
        state: "pending", "running", "stopping", "stopped", "shutting-down", "terminated".
        zone: Its availability zone.
        address: Its private IPv4 address, empty when it has none.
        kind: "t3.small".
        launched: Seconds since 1970.
        group: Its autoscaling group, empty when it is in none.
        lifecycle: What the group says of it: "InService", "Terminating:Wait"; empty without.
        healthy: What the group says of its health; None without.
    """

    id: str
    fleet: str
    role: str
    state: str
    zone: str
    address: str
    kind: str
    launched: float
    group: str = ""
    lifecycle: str = ""
    healthy: bool | None = None


def fleet_name(text: str) -> str:
    """A fleet's name, looked at.

    Raises:
        ValueError: it is none.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name of a fleet: letters, digits and ._- up to 64, for it is the value"
            f" of tag {FLEET_TAG}"
        )
    return text


class Ec2Fleet:
    """A fleet in EC2.

    Args:
        name: Value of its instances' tag ``shoal:fleet``.
        ec2: A client of EC2.
        autoscaling: One of autoscaling.

    Raises:
        ValueError: that is no name of a fleet.
    """

    def __init__(self, name: str, *, ec2: Any, autoscaling: Any) -> None:
        self.name = fleet_name(name)
        self._ec2 = ec2
        self._autoscaling = autoscaling

    @classmethod
    def open(cls, name: str, region: str | None = None) -> Ec2Fleet:
        """A fleet of the account that the environment leads to.

        Raises:
            AwsError: boto3 or a region is missing.
            ValueError: that is no name of a fleet.
        """
        return cls(
            name,
            ec2=clients.client("ec2", region=region),
            autoscaling=clients.client("autoscaling", region=region),
        )

    def instances(self, role: str = "", states: Iterable[str] = LIVE) -> tuple[Instance, ...]:
        """The fleet's instances by zone and id.

        Args:
            role: Only those of this role; empty: all.
            states: Only those in one of these.

        Raises:
            AwsError: AWS does not say.
        """
        found = find(self._ec2, self._autoscaling, self.name, states)
        return tuple(each for each in found if not role or each.role == role)

    def instance(self, id_: str) -> Instance:
        """One instance of the fleet, whatever its state.

        Raises:
            AwsError: there is none of this id, or it is not the fleet's.
            ValueError: that is no id of an instance.
        """
        if not _INSTANCE.fullmatch(id_):
            raise ValueError(f"{id_!r} is no id of an instance; such are i-0123456789abcdef0")
        with clients.spoken(f"{id_} can't be looked at"):
            answer = self._ec2.describe_instances(InstanceIds=[id_])
        for each in _described(answer):
            if each["InstanceId"] == id_:
                tags = _tags(each)
                if tags.get(FLEET_TAG) != self.name:
                    raise AwsError(
                        f"{id_} is not of fleet {self.name!r} and is left alone: its tag"
                        f" {FLEET_TAG} is {tags.get(FLEET_TAG)!r}"
                    )
                (joined,) = _joined([_instance(each)], self._autoscaling)
                return joined
        raise AwsError(f"{id_} can't be looked at: there is no such instance")

    def terminate(self, instance: Instance, *, shrink: bool = False) -> None:
        """Ends an instance: by its autoscaling group where it has one, so that its hooks are heard.

        Args:
            instance: Which.
            shrink: The group is to be one smaller, not to start another.

        Raises:
            AwsError: it is not the fleet's any more, or AWS refuses.
        """
        instance = self.instance(instance.id)
        with clients.spoken(f"{instance.id} can't be terminated"):
            if instance.group:
                self._autoscaling.terminate_instance_in_auto_scaling_group(
                    InstanceId=instance.id, ShouldDecrementDesiredCapacity=shrink
                )
            else:
                self._ec2.terminate_instances(InstanceIds=[instance.id])

    def stop(self, instance: Instance) -> None:
        """Stops an instance; its volumes stay. A group that it is in replaces it.

        Raises:
            AwsError: it is not the fleet's any more, or AWS refuses.
        """
        instance = self.instance(instance.id)
        with clients.spoken(f"{instance.id} can't be stopped"):
            self._ec2.stop_instances(InstanceIds=[instance.id])

    def start(self, instance: Instance) -> None:
        """Starts a stopped instance.

        Raises:
            AwsError: it is not the fleet's any more, or AWS refuses.
        """
        instance = self.instance(instance.id)
        with clients.spoken(f"{instance.id} can't be started"):
            self._ec2.start_instances(InstanceIds=[instance.id])

    def whole(self, group: str) -> bool:
        """Whether a group has as many healthy instances in service as it is to have.

        Raises:
            AwsError: AWS does not say, or there is no such group.
        """
        with clients.spoken(f"group {group} can't be looked at"):
            answer = self._autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])
        for each in answer["AutoScalingGroups"]:
            good = [
                member
                for member in each["Instances"]
                if member["LifecycleState"] == "InService"
                and member["HealthStatus"].upper() == "HEALTHY"
            ]
            return len(good) >= int(each["DesiredCapacity"])
        raise AwsError(f"there is no autoscaling group {group}")

    def groups(self, role: str = SERVICES_ROLE) -> tuple[str, ...]:
        """Names of the fleet's autoscaling groups of a role, sorted.

        Raises:
            AwsError: AWS does not say.
        """
        wanted = {FLEET_TAG: self.name, ROLE_TAG: role}
        names = []
        with clients.spoken(f"the autoscaling groups of fleet {self.name!r} can't be listed"):
            pages = self._autoscaling.get_paginator("describe_auto_scaling_groups").paginate(
                Filters=[{"Name": f"tag:{key}", "Values": [value]} for key, value in wanted.items()]
            )
            for page in pages:
                for group in page["AutoScalingGroups"]:
                    # Looked at here too: what is upgraded for its tag has to have it.
                    tags = _tags(group)
                    if all(tags.get(key) == value for key, value in wanted.items()):
                        names.append(group["AutoScalingGroupName"])
        return tuple(sorted(names))


def find(
    ec2: Any, autoscaling: Any, fleet: str = "", states: Iterable[str] = LIVE
) -> tuple[Instance, ...]:
    """Instances by fleet, zone and id.

    Args:
        ec2: A client of EC2.
        autoscaling: One of autoscaling.
        fleet: Whose; empty: of all fleets.
        states: Only those in one of these.

    Raises:
        AwsError: AWS does not say.
    """
    tag = (
        {"Name": f"tag:{FLEET_TAG}", "Values": [fleet]}
        if fleet
        else {"Name": "tag-key", "Values": [FLEET_TAG]}
    )
    filters = [tag, {"Name": "instance-state-name", "Values": list(states)}]
    whose = f"fleet {fleet!r}" if fleet else "all fleets"
    with clients.spoken(f"the instances of {whose} can't be listed"):
        pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)
        found = [_instance(each) for page in pages for each in _described(page)]
    # EC2's filter is not the guard: it knows wildcards.
    exact = [each for each in found if each.fleet and fleet in ("", each.fleet)]
    joined = _joined(exact, autoscaling)
    return tuple(sorted(joined, key=lambda each: (each.fleet, each.role, each.zone, each.id)))


def _joined(instances: Sequence[Instance], autoscaling: Any) -> Iterator[Instance]:
    """Instances with what their autoscaling groups say of them."""
    for begin in range(0, len(instances), _BATCH):
        batch = instances[begin : begin + _BATCH]
        with clients.spoken("what autoscaling says of the instances can't be read"):
            answer = autoscaling.describe_auto_scaling_instances(
                InstanceIds=[each.id for each in batch]
            )
        said = {each["InstanceId"]: each for each in answer["AutoScalingInstances"]}
        for each in batch:
            member = said.get(each.id)
            if member is None:
                yield each
                continue
            yield replace(
                each,
                group=member["AutoScalingGroupName"],
                lifecycle=member["LifecycleState"],
                healthy=member["HealthStatus"].upper() == "HEALTHY",
            )


def _described(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for reservation in answer["Reservations"]:
        yield from reservation["Instances"]


def _tags(described: Mapping[str, Any]) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in described.get("Tags", ())}


def _instance(described: Mapping[str, Any]) -> Instance:
    tags = _tags(described)
    return Instance(
        id=described["InstanceId"],
        fleet=tags.get(FLEET_TAG, ""),
        role=tags.get(ROLE_TAG, ""),
        state=described["State"]["Name"],
        zone=described["Placement"]["AvailabilityZone"],
        address=described.get("PrivateIpAddress", ""),
        kind=described.get("InstanceType", ""),
        launched=described["LaunchTime"].timestamp(),
    )
