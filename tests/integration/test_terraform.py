"""The example environment, applied by the real provider to a moto server, looked at, destroyed.

PostgreSQL makes Terraform wait for three minutes, whatever the server says, so the whole suite
applies the example with SQLite. `make terraform-check` does both (SHOAL_TERRAFORM=full).
"""

import base64
import gzip
import json
import os
import subprocess
from collections import Counter

import boto3
import pytest

from tests.support.moto import Moto
from tests.support.terraform import Environment, copied, plugins

REGION = "us-east-1"
ZONES = ["us-east-1a", "us-east-1b", "us-east-1c"]
FLEET = "reef"
CERTIFICATES = {
    name: f"arn:aws:secretsmanager:{REGION}:123456789012:secret:{FLEET}/tls/{name}-AbCdEf"
    for name in ("registry", "api", "scheduler", "appmanager", "zookeeper")
}


class Aws:
    """Plain clients of the server, and what a test wants to know of all of it."""

    def __init__(self, endpoint):
        self._endpoint = endpoint

    def __getattr__(self, service):
        return boto3.client(
            service,
            endpoint_url=self._endpoint,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def instances(self, **tags):
        filters = [{"Name": f"tag:shoal:{key}", "Values": [value]} for key, value in tags.items()]
        filters.append({"Name": "instance-state-name", "Values": ["pending", "running"]})
        pages = self.ec2.get_paginator("describe_instances").paginate(Filters=filters)
        return [
            each
            for page in pages
            for reservation in page["Reservations"]
            for each in reservation["Instances"]
        ]

    def inventory(self):
        """Everything that may be left over, as kind and name."""
        ec2, iam, rds, asg = self.ec2, self.iam, self.rds, self.autoscaling
        own = {"Filters": [{"Name": "owner-id", "Values": ["123456789012"]}]}
        found = {
            "vpc": [each["VpcId"] for each in ec2.describe_vpcs()["Vpcs"]],
            "subnet": [each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]],
            "gateway": [
                each["InternetGatewayId"]
                for each in ec2.describe_internet_gateways()["InternetGateways"]
            ],
            "nat": [
                each["NatGatewayId"]
                for each in ec2.describe_nat_gateways()["NatGateways"]
                if each["State"] != "deleted"
            ],
            "address": [each["AllocationId"] for each in ec2.describe_addresses()["Addresses"]],
            "routes": [each["RouteTableId"] for each in ec2.describe_route_tables()["RouteTables"]],
            "security group": [
                each["GroupId"] for each in ec2.describe_security_groups()["SecurityGroups"]
            ],
            "endpoint": [
                each["VpcEndpointId"]
                for each in ec2.describe_vpc_endpoints()["VpcEndpoints"]
                if each["State"] != "deleted"
            ],
            # Of instances and NAT gateways that are gone moto keeps the interfaces.
            "interface": [
                each["NetworkInterfaceId"]
                for each in ec2.describe_network_interfaces(
                    Filters=[{"Name": "tag-key", "Values": ["shoal:fleet"]}]
                )["NetworkInterfaces"]
            ],
            "volume": [each["VolumeId"] for each in ec2.describe_volumes()["Volumes"]],
            "snapshot": [each["SnapshotId"] for each in ec2.describe_snapshots(**own)["Snapshots"]],
            "instance": [each["InstanceId"] for each in self.instances()],
            "template": [
                each["LaunchTemplateId"]
                for each in ec2.describe_launch_templates()["LaunchTemplates"]
            ],
            "group": [
                each["AutoScalingGroupName"]
                for each in asg.describe_auto_scaling_groups()["AutoScalingGroups"]
            ],
            "role": [each["RoleName"] for each in iam.list_roles()["Roles"]],
            "profile": [
                each["InstanceProfileName"]
                for each in iam.list_instance_profiles()["InstanceProfiles"]
            ],
            "policy": [each["Arn"] for each in iam.list_policies(Scope="Local")["Policies"]],
            "zone": [each["Id"] for each in self.route53.list_hosted_zones()["HostedZones"]],
            "bucket": [each["Name"] for each in self.s3.list_buckets()["Buckets"]],
            "database": [
                each["DBInstanceIdentifier"] for each in rds.describe_db_instances()["DBInstances"]
            ],
            "database subnets": [
                each["DBSubnetGroupName"]
                for each in rds.describe_db_subnet_groups()["DBSubnetGroups"]
            ],
            "database snapshot": [
                each["DBSnapshotIdentifier"] for each in rds.describe_db_snapshots()["DBSnapshots"]
            ],
        }
        return {(kind, name) for kind, names in found.items() for name in names}


@pytest.fixture
def aws():
    # Groups' instances need no image that moto knows.
    with Moto("tests.support.moto_server", MOTO_EC2_LOAD_DEFAULT_AMIS="false") as server:
        yield server.url, Aws(server.url)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "store",
    [
        "sqlite",
        pytest.param(
            "postgres",
            marks=pytest.mark.skipif(
                os.environ.get("SHOAL_TERRAFORM") != "full",
                reason="RDS makes Terraform wait for minutes; make terraform-check runs this",
            ),
        ),
    ],
)
def test_the_example_is_applied_looked_at_and_destroyed(store, tmp_path, aws):
    mirror = plugins()
    endpoint, aws = aws
    directory = copied(tmp_path) / "terraform/environments/example"
    variables = {"fleet": FLEET, "store": store, "protected": False, "region": REGION}
    variables["api_cidrs"] = ["10.20.0.0/16"]
    # The one in plain text, the other with its doors shut.
    if store == "postgres":
        variables["certificates"] = CERTIFICATES
    environment = Environment(directory, endpoint, variables)
    environment.init(mirror)
    before = aws.inventory()

    environment.apply()
    outputs = environment.outputs()
    hosts_are_where_they_should_be(aws, outputs, gateways=1 if store == "sqlite" else 3)
    hosts_are_shut(aws)
    nodes_keep_names_addresses_and_disks(aws, outputs)
    zookeeper_has_one_door(aws, outputs, tls="certificates" in variables)
    nobody_comes_in_who_should_not(aws)
    hosts_are_waited_for(aws, outputs)
    roles_may_only_what_is_named(aws)
    the_bucket_is_shut(aws, outputs)
    the_store_is_shut(aws, store)
    user_data_is_shell_that_can_be_read(aws, outputs, tmp_path)

    environment.destroy()
    assert aws.inventory() - before == set()


def tags(each):
    # Of network interfaces they are called differently.
    return {tag["Key"]: tag["Value"] for tag in each.get("Tags", each.get("TagSet", ()))}


def hosts_are_where_they_should_be(aws, outputs, gateways):
    assert outputs["fleet"] == FLEET
    assert outputs["region"] == REGION
    assert outputs["autoscaling_groups"] == {"gateway": "reef-gateway", "workers": "reef-workers"}
    services = aws.instances(fleet=FLEET, role="services")
    groups = Counter(tags(each)["aws:autoscaling:groupName"] for each in services)
    assert groups == {"reef-gateway": gateways, "reef-workers": 3}
    # Moto starts all of a group's instances in its first zone; AWS spreads them.
    (workers,) = aws.autoscaling.describe_auto_scaling_groups(
        AutoScalingGroupNames=["reef-workers"]
    )["AutoScalingGroups"]
    assert sorted(workers["AvailabilityZones"]) == ZONES
    assert (workers["MinSize"], workers["DesiredCapacity"], workers["MaxSize"]) == (3, 3, 4)
    nodes = aws.instances(fleet=FLEET, role="zookeeper")
    zones = {tags(each)["shoal:node"]: each["Placement"]["AvailabilityZone"] for each in nodes}
    assert zones == dict(zip("123", ZONES, strict=True))
    # Who asks by tag finds the groups that the outputs name.
    pages = aws.autoscaling.get_paginator("describe_auto_scaling_groups").paginate(
        Filters=[{"Name": "tag:shoal:fleet", "Values": [FLEET]}]
    )
    found = {
        each["AutoScalingGroupName"]: tags(each)["shoal:role"]
        for page in pages
        for each in page["AutoScalingGroups"]
    }
    assert found == dict.fromkeys(outputs["autoscaling_groups"].values(), "services") | (
        dict.fromkeys(outputs["zookeeper_groups"], "zookeeper")
    )


def template_data(aws, name):
    versions = aws.ec2.describe_launch_template_versions(
        LaunchTemplateName=name, Versions=["$Latest"]
    )
    return versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]


def hosts_are_shut(aws):
    for each in aws.instances(fleet=FLEET):
        assert "KeyName" not in each
        assert "PublicIpAddress" not in each
    templates = aws.ec2.describe_launch_templates()["LaunchTemplates"]
    assert len(templates) == 5
    for each in templates:
        data = template_data(aws, each["LaunchTemplateName"])
        assert "KeyName" not in data
        role = each["LaunchTemplateName"].removeprefix("reef-")
        assert data["IamInstanceProfile"]["Arn"].endswith(f"/reef-us-east-1-{role}")
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert [disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"]] == [True]
        # Disks and interfaces are found by the fleet's tags too.
        tagged = {
            part["ResourceType"]
            for part in data["TagSpecifications"]
            if tags(part).get("shoal:fleet") == FLEET
        }
        assert tagged >= {"instance", "volume", "network-interface"}


def nodes_keep_names_addresses_and_disks(aws, outputs):
    (zone,) = aws.route53.list_hosted_zones()["HostedZones"]
    assert zone["Name"] == "reef.internal."
    records = {
        each["Name"]: [value["Value"] for value in each["ResourceRecords"]]
        for each in aws.route53.list_resource_record_sets(HostedZoneId=zone["Id"])[
            "ResourceRecordSets"
        ]
        if each["Type"] == "A"
    }
    interfaces = {
        tags(each)["shoal:node"]: each
        for each in aws.ec2.describe_network_interfaces(
            Filters=[{"Name": "tag:shoal:role", "Values": ["zookeeper"]}]
        )["NetworkInterfaces"]
        if "Fixed address" in each["Description"]
    }
    volumes = {
        tags(each)["shoal:node"]: each
        for each in aws.ec2.describe_volumes(
            Filters=[{"Name": "tag:shoal:role", "Values": ["zookeeper"]}]
        )["Volumes"]
        if each["Size"] == 10
    }
    for number, where in zip("123", ZONES, strict=True):
        node = outputs["zookeeper_nodes"][number]
        assert records[f"zk-{number}.reef.internal."] == [interfaces[number]["PrivateIpAddress"]]
        assert interfaces[number]["PrivateIpAddress"] == node["address"]
        assert interfaces[number]["AvailabilityZone"] == where == node["zone"]
        assert volumes[number]["AvailabilityZone"] == where
        assert volumes[number]["Encrypted"]


def zookeeper_has_one_door(aws, outputs, tls):
    scheme, port = ("tls://", 2281) if tls else ("", 2181)
    hosts = ",".join(f"zk-{number}.reef.internal:{port}" for number in "123")
    assert outputs["zookeeper"] == f"{scheme}{hosts}/shoal"
    (group,) = aws.ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["reef-zookeeper"]}]
    )["SecurityGroups"]
    assert {rule["FromPort"] for rule in group["IpPermissions"]} == {port, 2888, 3888}
    read = {}
    for role in ("gateway", "workers", "zookeeper-1"):
        names = {"RoleName": f"reef-{REGION}-{role}"}
        (name,) = aws.iam.list_role_policies(**names)["PolicyNames"]
        policy = aws.iam.get_role_policy(**names, PolicyName=name)["PolicyDocument"]
        found = [each for each in policy["Statement"] if "OwnCertificate" in each["Sid"]]
        read[role] = sorted(arn for each in found for arn in flat(each["Resource"]))
    shut = {
        "gateway": sorted(CERTIFICATES[name] for name in ("registry", "api", "scheduler")),
        "workers": [CERTIFICATES["appmanager"]],
        "zookeeper-1": [CERTIFICATES["zookeeper"]],
    }
    assert read == (shut if tls else {role: [] for role in read})


def flat(resource):
    return [resource] if isinstance(resource, str) else resource


def nobody_comes_in_who_should_not(aws):
    groups = aws.ec2.describe_security_groups(
        Filters=[{"Name": "tag:shoal:fleet", "Values": [FLEET]}]
    )["SecurityGroups"]
    assert {"reef-services", "reef-api", "reef-zookeeper", "reef-endpoints"} <= {
        each["GroupName"] for each in groups
    }
    addresses = {}
    for group in groups:
        for rule in group["IpPermissions"]:
            assert rule["IpProtocol"] == "tcp", group["GroupName"]
            assert not rule["FromPort"] <= 22 <= rule["ToPort"], group["GroupName"]
            for block in rule["IpRanges"]:
                addresses[group["GroupName"]] = (block["CidrIp"], rule["FromPort"], rule["ToPort"])
            assert rule["Ipv6Ranges"] == []
    # All else is from group to group.
    assert addresses == {
        "reef-endpoints": ("10.60.0.0/16", 443, 443),
        "reef-api": ("10.20.0.0/16", 7402, 7402),
    }


def hosts_are_waited_for(aws, outputs):
    for group in outputs["autoscaling_groups"].values():
        hooks = aws.autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=group)
        found = {
            each["LifecycleHookName"]: (
                each["LifecycleTransition"].rpartition("_")[2],
                each["HeartbeatTimeout"],
                each["DefaultResult"],
            )
            for each in hooks["LifecycleHooks"]
        }
        assert found == {
            "shoal-serving": ("LAUNCHING", 1800, "ABANDON"),
            outputs["drain_hook"]: ("TERMINATING", 300, "CONTINUE"),
        }


def roles_may_only_what_is_named(aws):
    roles = [
        each["RoleName"]
        for each in aws.iam.list_roles()["Roles"]
        if each["RoleName"].startswith("reef-")
    ]
    assert len(roles) == 5
    for role in roles:
        assert aws.iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
        (name,) = aws.iam.list_role_policies(RoleName=role)["PolicyNames"]
        policy = aws.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for statement in policy["Statement"]:
            assert "*" not in str(statement["Action"]), (role, statement)
            if statement["Resource"] == "*":
                assert statement["Sid"] in ("SsmAgent", "LookForHooks"), (role, statement)


def the_bucket_is_shut(aws, outputs):
    s3, bucket = aws.s3, {"Bucket": outputs["bucket"]}
    assert outputs["objects"] == f"s3://{outputs['bucket']}/objects"
    assert s3.get_bucket_versioning(**bucket)["Status"] == "Enabled"
    (rule,) = s3.get_bucket_encryption(**bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    public = s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"]
    assert len(public) == 4
    assert all(public.values())
    policy = json.loads(s3.get_bucket_policy(**bucket)["Policy"])
    conditions = {each["Sid"]: (each["Effect"], each["Condition"]) for each in policy["Statement"]}
    assert conditions["TlsOnly"] == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    (rule,) = s3.get_bucket_lifecycle_configuration(**bucket)["Rules"]
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    kept = {each["Key"] for each in s3.list_objects_v2(**bucket)["Contents"]}
    assert kept == {"applications/catalogue/nap-1.0.toml", "applications/apps/nap/nap.py"}


def the_store_is_shut(aws, store):
    databases = aws.rds.describe_db_instances()["DBInstances"]
    if store == "sqlite":
        assert databases == []
        (volume,) = aws.ec2.describe_volumes(
            Filters=[{"Name": "tag:Name", "Values": ["reef-store"]}]
        )["Volumes"]
        assert volume["Encrypted"]
        (host,) = aws.instances(fleet=FLEET, group="gateway")
        assert volume["AvailabilityZone"] == host["Placement"]["AvailabilityZone"]
        return
    (database,) = databases
    assert database["Engine"] == "postgres"
    assert database["MultiAZ"]
    assert database["StorageEncrypted"]
    assert not database["PubliclyAccessible"]
    assert database["MasterUserSecret"]["SecretArn"].startswith("arn:aws:secretsmanager:")


def user_data_is_shell_that_can_be_read(aws, outputs, tmp_path):
    groups = [*outputs["autoscaling_groups"].values(), *outputs["zookeeper_groups"]]
    for name in groups:
        packed = base64.b64decode(template_data(aws, name)["UserData"])
        assert len(packed) <= 16 * 1024, f"EC2 takes 16 KB, {name} has {len(packed)}"
        script = gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed
        assert script.startswith(b"#!/bin/bash\n")
        assert script.endswith(b"\nmain\n")
        assert b"BEGIN RSA" not in script
        path = tmp_path / f"{name}.sh"
        path.write_bytes(script)
        subprocess.run(["bash", "-n", path], check=True)
