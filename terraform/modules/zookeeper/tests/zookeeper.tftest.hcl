mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "us-east-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_ec2_instance_type" {
    defaults = { supported_architectures = ["arm64"] }
  }
  mock_data "aws_ssm_parameter" {
    defaults = { value = "ami-0123456789abcdef0" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/mocked" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
}

variables {
  fleet           = "reef"
  vpc_id          = "vpc-1"
  zones           = ["us-east-1a", "us-east-1b", "us-east-1c"]
  private_subnets = { us-east-1a = "subnet-a", us-east-1b = "subnet-b", us-east-1c = "subnet-c" }
}

run "three_nodes_each_with_what_is_its_own" {
  assert {
    condition     = length(aws_autoscaling_group.node) == 3 && alltrue([for group in aws_autoscaling_group.node : group.min_size == 1 && group.max_size == 1])
    error_message = "One group of one instance for each node."
  }
  assert {
    condition     = [for number in ["1", "2", "3"] : aws_autoscaling_group.node[number].vpc_zone_identifier] == [toset(["subnet-a"]), toset(["subnet-b"]), toset(["subnet-c"])]
    error_message = "Each node is in a zone of its own."
  }
  assert {
    condition     = [for number in ["1", "2", "3"] : [aws_ebs_volume.node[number].availability_zone, aws_network_interface.node[number].subnet_id]] == [["us-east-1a", "subnet-a"], ["us-east-1b", "subnet-b"], ["us-east-1c", "subnet-c"]]
    error_message = "Volume and interface are where the instance is."
  }
  assert {
    condition     = alltrue([for volume in aws_ebs_volume.node : volume.encrypted && volume.final_snapshot])
    error_message = "Data volumes are encrypted and leave a snapshot."
  }
  assert {
    condition     = alltrue([for number, record in aws_route53_record.node : record.name == "zk-${number}.reef.internal" && record.records == toset([aws_network_interface.node[number].private_ip])])
    error_message = "Names lead to the fixed addresses."
  }
  assert {
    condition     = [for vpc in aws_route53_zone.this.vpc : vpc.vpc_id] == ["vpc-1"]
    error_message = "They are seen from the VPC only."
  }
  assert {
    condition     = output.connect == "zk-1.reef.internal:2181,zk-2.reef.internal:2181,zk-3.reef.internal:2181/shoal"
    error_message = "The connect string names all nodes and the chroot: ${output.connect}."
  }
  assert {
    condition     = alltrue([for node in aws_autoscaling_group.node : { for tag in node.tag : tag.key => tag.value if tag.propagate_at_launch && startswith(tag.key, "shoal:") && tag.key != "shoal:node" } == { "shoal:fleet" = "reef", "shoal:role" = "zookeeper" }])
    error_message = "Instances carry the fleet's tags."
  }
}

run "instances_are_shut" {
  assert {
    condition     = alltrue([for template in aws_launch_template.node : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "IMDSv2 only, and not from containers."
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.node : tobool(template.block_device_mappings[0].ebs[0].encrypted)])
    error_message = "Disks are encrypted."
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.node : template.key_name == null || template.key_name == ""])
    error_message = "Nobody has a key."
  }
  assert {
    condition     = length([for rule in concat([aws_vpc_security_group_ingress_rule.client], values(aws_vpc_security_group_ingress_rule.peer)) : rule if rule.cidr_ipv4 != null || rule.cidr_ipv6 != null || rule.referenced_security_group_id == null]) == 0
    error_message = "Only members of groups come in."
  }
  assert {
    condition     = join(" ", sort([for rule in concat([aws_vpc_security_group_ingress_rule.client], values(aws_vpc_security_group_ingress_rule.peer)) : "${rule.from_port}-${rule.to_port}"])) == "2181-2181 2888-2888 3888-3888"
    error_message = "ZooKeeper's three ports and no other, 22 least of all."
  }
}

run "a_node_may_attach_its_own_and_no_more" {
  assert {
    condition = alltrue([for number, policy in aws_iam_role_policy.node : [for statement in jsondecode(policy.policy).Statement : statement.Resource if statement.Sid == "AttachOwnVolumeAndInterface"][0] == [
      "arn:aws:ec2:us-east-1:123456789012:volume/${aws_ebs_volume.node[number].id}",
      "arn:aws:ec2:us-east-1:123456789012:network-interface/${aws_network_interface.node[number].id}",
    ]])
    error_message = "What it attaches is named."
  }
  assert {
    condition     = alltrue([for number, policy in aws_iam_role_policy.node : [for statement in jsondecode(policy.policy).Statement : statement.Condition.StringEquals["aws:ResourceTag/shoal:node"] if statement.Sid == "AttachThemToOwnInstance"][0] == number])
    error_message = "It attaches them to its own instance."
  }
  assert {
    condition     = alltrue(flatten([for policy in aws_iam_role_policy.node : [for statement in jsondecode(policy.policy).Statement : [for action in flatten([statement.Action]) : !strcontains(action, "*")]]]))
    error_message = "No action is a pattern."
  }
  assert {
    condition     = alltrue(flatten([for policy in aws_iam_role_policy.node : [for statement in jsondecode(policy.policy).Statement : statement.Sid if statement.Resource == "*" && statement.Sid != "SsmAgent"] == []]))
    error_message = "Only the SSM agent's actions, which know no resources, are for all."
  }
  assert {
    condition     = alltrue([for role in aws_iam_role.node : jsondecode(role.assume_role_policy).Statement == [{ Effect = "Allow", Principal = { Service = "ec2.amazonaws.com" }, Action = "sts:AssumeRole" }]])
    error_message = "Roles are EC2's."
  }
}

run "five_nodes" {
  variables {
    size = 5
  }
  assert {
    condition     = join(" ", [for number in ["1", "2", "3", "4", "5"] : aws_ebs_volume.node[number].availability_zone]) == "us-east-1a us-east-1b us-east-1c us-east-1a us-east-1b"
    error_message = "Five nodes are spread over three zones."
  }
}

run "from_a_bucket" {
  variables {
    archive = { url = "s3://mine/zookeeper.tar.gz", sha256 = "284cb4675adb64794c63d95bf202d265cebddc0cda86ac86fb0ede8049de9187" }
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.node["1"].policy).Statement : statement.Resource if statement.Sid == "FetchArchive"] == ["arn:aws:s3:::mine/zookeeper.tar.gz"]
    error_message = "It may read the archive, and nothing else in that bucket."
  }
}

run "in_plain_text_there_is_one_door" {
  command = plan
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.peer) == 2 && aws_vpc_security_group_egress_rule.client.from_port == 2181
    error_message = "Clients come to 2181, peers to 2888 and 3888."
  }
  assert {
    condition     = alltrue([for data in local.user_data : strcontains(data, "CERTIFICATES=''") && !strcontains(data, "fetch_certificates()")])
    error_message = "Nodes without certificates fetch none."
  }
  assert {
    condition     = !strcontains(join(" ", [for policy in aws_iam_role_policy.node : policy.policy]), "secretsmanager")
    error_message = "Nodes read no secret."
  }
}

run "with_certificates_there_is_none_for_plain_text" {
  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/2"
    certificates = {
      zookeeper   = "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/zookeeper-AbCdEf"
      kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/1"
    }
  }
  assert {
    condition     = output.connect == "tls://zk-1.reef.internal:2281,zk-2.reef.internal:2281,zk-3.reef.internal:2281/shoal"
    error_message = "The connect string says that ZooKeeper demands certificates: ${output.connect}."
  }
  assert {
    condition     = join(" ", sort([for rule in concat([aws_vpc_security_group_ingress_rule.client], values(aws_vpc_security_group_ingress_rule.peer)) : "${rule.from_port}-${rule.to_port}"])) == "2281-2281 2281-2281 2888-2888 3888-3888"
    error_message = "Clients and nodes that ask how another does come to 2281, and nobody to 2181."
  }
  assert {
    condition     = join(" ", sort([for rule in concat([aws_vpc_security_group_egress_rule.client], values(aws_vpc_security_group_egress_rule.peer)) : tostring(rule.to_port)])) == "2281 2281 2888 3888"
    error_message = "And they may go there."
  }
  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.node : [for statement in jsondecode(policy.policy).Statement : [statement.Action, statement.Resource] if statement.Sid == "ReadOwnCertificate"] == [["secretsmanager:GetSecretValue", "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/zookeeper-AbCdEf"]]])
    error_message = "A node reads ZooKeeper's secret, and no other."
  }
  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.node : [for statement in jsondecode(policy.policy).Statement : [statement.Action, statement.Resource, statement.Condition.StringEquals] if statement.Sid == "DecryptIt"] == [["kms:Decrypt", "arn:aws:kms:us-east-1:123456789012:key/1", { "kms:ViaService" = "secretsmanager.us-east-1.amazonaws.com" }]]])
    error_message = "It may use the key for secrets only."
  }
  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.node : [for statement in jsondecode(policy.policy).Statement : [statement.Action, statement.Resource, statement.Condition.Bool, statement.Condition.StringEquals] if statement.Sid == "LetEc2DecryptVolumes"] == [["kms:CreateGrant", "arn:aws:kms:us-east-1:123456789012:key/2", { "kms:GrantIsForAWSResource" = "true" }, { "kms:ViaService" = "ec2.us-east-1.amazonaws.com" }]]])
    error_message = "And let EC2 use the disks' key for its volume."
  }
  assert {
    condition     = alltrue([for data in local.user_data : strcontains(data, "CERTIFICATES='zookeeper=arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/zookeeper-AbCdEf'") && strcontains(data, "fetch_certificates()") && strcontains(data, "restart_in_turn()")])
    error_message = "Nodes know what to fetch, and how."
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.node : length(template.user_data) * 3 / 4 <= 16384])
    error_message = "User data fits into EC2's 16 KB."
  }
}

run "without_a_key_of_your_own" {
  command = plan
  variables {
    certificates = { zookeeper = "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/zookeeper-AbCdEf" }
  }
  assert {
    condition     = length([for statement in local.own_certificate : statement if statement.Sid == "DecryptIt"]) == 0
    error_message = "Secrets with AWS's own key need no permission on it."
  }
}

run "what_makes_no_sense_is_refused" {
  command = plan
  variables {
    size          = 4
    zones         = ["us-east-1a", "us-east-1b"]
    archive       = { url = "http://mine/zookeeper.tar.gz", sha256 = "abc" }
    chroot        = "shoal"
    heap_mb       = 16
    volume_gb     = 1
    instance_type = "small"
    ami_id        = "debian"
    certificates  = { zookeeper = "reef/tls/zookeeper" }
  }
  expect_failures = [var.certificates, var.size, var.zones, var.archive, var.chroot, var.heap_mb, var.volume_gb, var.instance_type, var.ami_id]
}
