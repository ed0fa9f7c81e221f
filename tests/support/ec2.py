"""Instances and groups in moto, tagged as the Terraform modules tag them."""

from __future__ import annotations


class Account:
    """Makes what a test needs in moto, past everything that is tested."""

    def __init__(self, moto) -> None:
        self.ec2 = moto.client("ec2")
        self.autoscaling = moto.client("autoscaling")
        # Moto takes any; asking for one it has costs seconds.
        self._image = "ami-0123456789abcdef0"
        self._subnets = self.ec2.describe_subnets()["Subnets"]

    def instances(self, count=1, zone=0, **tags):
        """Ids of new instances; ``fleet`` and ``role`` become the tags of ours."""
        tagged = {}
        if tags:
            tagged["TagSpecifications"] = [{"ResourceType": "instance", "Tags": _tags(tags)}]
        made = self.ec2.run_instances(
            ImageId=self._image,
            InstanceType="t3.small",
            MinCount=count,
            MaxCount=count,
            SubnetId=self._subnets[zone]["SubnetId"],
            **tagged,
        )
        return sorted(each["InstanceId"] for each in made["Instances"])

    def group(self, name, count=2, **tags):
        """Ids of the instances of a new autoscaling group."""
        template = self.ec2.create_launch_template(
            LaunchTemplateName=f"template-{name}",
            LaunchTemplateData={"ImageId": self._image, "InstanceType": "t3.micro"},
        )
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            MinSize=0,
            MaxSize=9,
            DesiredCapacity=count,
            LaunchTemplate={
                "LaunchTemplateId": template["LaunchTemplate"]["LaunchTemplateId"],
                "Version": "1",
            },
            VPCZoneIdentifier=self._subnets[0]["SubnetId"],
            Tags=[each | {"PropagateAtLaunch": True} for each in _tags(tags)],
        )
        return self.members(name)

    def members(self, name):
        (group,) = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
            "AutoScalingGroups"
        ]
        return sorted(each["InstanceId"] for each in group["Instances"])

    def ever(self, **tags):
        """Ids of all instances with these tags, ended ones too."""
        filters = [
            {"Name": f"tag:{each['Key']}", "Values": [each["Value"]]} for each in _tags(tags)
        ]
        found = self.ec2.describe_instances(Filters=filters)["Reservations"]
        return {each["InstanceId"] for one in found for each in one["Instances"]}

    def state(self, id_):
        (reservation,) = self.ec2.describe_instances(InstanceIds=[id_])["Reservations"]
        return reservation["Instances"][0]["State"]["Name"]

    def address(self, id_):
        (reservation,) = self.ec2.describe_instances(InstanceIds=[id_])["Reservations"]
        return reservation["Instances"][0]["PrivateIpAddress"]


def _tags(tags):
    ours = {"fleet": "shoal:fleet", "role": "shoal:role"}
    return [{"Key": ours.get(key, key), "Value": value} for key, value in tags.items()]
