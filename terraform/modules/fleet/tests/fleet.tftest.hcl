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
    defaults = { supported_architectures = ["i386", "x86_64"] }
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
  private_subnets = { us-east-1a = "subnet-a", us-east-1b = "subnet-b", us-east-1c = "subnet-c" }
  zookeeper       = { connect = "zk-1.reef.internal:2181,zk-2.reef.internal:2181/shoal", client_security_group_id = "sg-zookeeper" }
  store = {
    store = {
      kind       = "postgres"
      address    = "reef-store.abc.us-east-1.rds.amazonaws.com"
      port       = 5432
      database   = "shoal"
      username   = "shoal"
      secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds!db-1"
    }
    client_security_group_id = "sg-store"
    bucket                   = "reef-123456789012-us-east-1"
    bucket_arn               = "arn:aws:s3:::reef-123456789012-us-east-1"
  }
  units = {
    "shoal-registry.service"    = "[Unit]"
    "shoal-api.service"         = "[Unit]"
    "shoal-scheduler.service"   = "[Unit]"
    "shoal-appmanager@.service" = "[Unit]"
  }
}

run "hosts_in_all_zones_that_drain_before_they_go" {
  assert {
    condition     = alltrue([for name in ["gateway", "workers"] : aws_autoscaling_group.this[name].vpc_zone_identifier == toset(["subnet-a", "subnet-b", "subnet-c"]) && aws_autoscaling_group.this[name].min_size == 3])
    error_message = "Three hosts over three zones."
  }
  assert {
    condition     = alltrue([for name in ["gateway", "workers"] : aws_autoscaling_lifecycle_hook.drain[name].lifecycle_transition == "autoscaling:EC2_INSTANCE_TERMINATING" && aws_autoscaling_lifecycle_hook.drain[name].heartbeat_timeout == 300 && aws_autoscaling_lifecycle_hook.drain[name].default_result == "CONTINUE"])
    error_message = "A host that goes may drain for five minutes."
  }
  assert {
    condition     = alltrue([for name in ["gateway", "workers"] : [for hook in aws_autoscaling_group.this[name].initial_lifecycle_hook : [hook.lifecycle_transition, hook.default_result]] == [["autoscaling:EC2_INSTANCE_LAUNCHING", "ABANDON"]]])
    error_message = "A host that never serves is given up."
  }
  assert {
    condition     = alltrue([for name in ["gateway", "workers"] : aws_autoscaling_group.this[name].instance_refresh[0].preferences[0].min_healthy_percentage == 100 && aws_autoscaling_group.this[name].instance_refresh[0].preferences[0].max_healthy_percentage == 150 && aws_autoscaling_group.this[name].instance_refresh[0].preferences[0].auto_rollback])
    error_message = "A refresh starts new hosts first, and goes back when they fail."
  }
  assert {
    condition     = alltrue([for name in ["gateway", "workers"] : { for tag in aws_autoscaling_group.this[name].tag : tag.key => tag.value if tag.propagate_at_launch } == { "shoal:fleet" = "reef", "shoal:role" = "services", "shoal:group" = name, Name = "reef-${name}" }])
    error_message = "Instances carry the fleet's tags."
  }
}

run "hosts_are_shut" {
  assert {
    condition     = alltrue([for name in ["gateway", "workers"] : aws_launch_template.this[name].metadata_options[0].http_tokens == "required" && aws_launch_template.this[name].metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "IMDSv2 only, and not from containers."
  }
  assert {
    condition     = alltrue([for name in ["gateway", "workers"] : tobool(aws_launch_template.this[name].block_device_mappings[0].ebs[0].encrypted)])
    error_message = "Disks are encrypted."
  }
  assert {
    condition     = alltrue([for name in ["gateway", "workers"] : aws_launch_template.this[name].key_name == null || aws_launch_template.this[name].key_name == ""])
    error_message = "Nobody has a key."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.api) == 0
    error_message = "Nobody outside is let in unasked."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.services.referenced_security_group_id == aws_security_group.services.id && aws_vpc_security_group_ingress_rule.services.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.services.from_port == 7401 && aws_vpc_security_group_ingress_rule.services.to_port == 7419
    error_message = "Services hear services, on their ports."
  }
  assert {
    condition     = contains(aws_launch_template.this["gateway"].vpc_security_group_ids, "sg-store") && !contains(aws_launch_template.this["workers"].vpc_security_group_ids, "sg-store")
    error_message = "The database hears registries only."
  }
  assert {
    condition     = contains(aws_launch_template.this["gateway"].vpc_security_group_ids, aws_security_group.api.id) && !contains(aws_launch_template.this["workers"].vpc_security_group_ids, aws_security_group.api.id)
    error_message = "The api's door is at the api's hosts."
  }
}

run "roles_may_what_their_services_need" {
  assert {
    condition     = [for name in ["gateway", "workers"] : join(" ", [for statement in jsondecode(aws_iam_role_policy.this[name].policy).Statement : statement.Sid])] == ["SsmAgent CompleteOwnLifecycleHooks LookForHooks KeepObjects FetchApplications ListThem ReadStorePassword", "SsmAgent CompleteOwnLifecycleHooks LookForHooks KeepObjects FetchApplications ListThem"]
    error_message = "Hosts that run jobs can't read the store's password; nobody may more than needed."
  }
  assert {
    condition     = alltrue(flatten([for name in ["gateway", "workers"] : [for statement in jsondecode(aws_iam_role_policy.this[name].policy).Statement : [for action in flatten([statement.Action]) : !strcontains(action, "*")]]]))
    error_message = "No action is a pattern."
  }
  assert {
    condition     = alltrue(flatten([for name in ["gateway", "workers"] : [for statement in jsondecode(aws_iam_role_policy.this[name].policy).Statement : statement.Resource != "*" || statement.Sid == "SsmAgent" || statement.Sid == "LookForHooks"]]))
    error_message = "Only the SSM agent's actions and descriptions, which know no resources, are for all."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.this["workers"].policy).Statement : statement.Resource if statement.Sid == "CompleteOwnLifecycleHooks"] == ["arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:*:autoScalingGroupName/reef-workers"]
    error_message = "A host completes its own group's hooks."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.this["workers"].policy).Statement : [statement.Action, statement.Resource] if statement.Sid == "KeepObjects"] == [[["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], "arn:aws:s3:::reef-123456789012-us-east-1/objects/*"]]
    error_message = "Objects are read and written below their prefix, and never deleted."
  }
}

run "in_plain_text_no_certificate_is_fetched" {
  command = plan
  assert {
    condition     = alltrue([for data in local.user_data : strcontains(data, "CERTIFICATES=''") && !strcontains(data, "fetch_certificates()")])
    error_message = "Hosts without certificates fetch none."
  }
}

run "hosts_read_the_certificates_of_their_own_services" {
  variables {
    zookeeper = { connect = "tls://zk-1.reef.internal:2281,zk-2.reef.internal:2281/shoal", client_security_group_id = "sg-zookeeper" }
    groups = {
      doors   = { services = ["api"] }
      gateway = { services = ["registry", "scheduler"] }
      workers = { services = ["appmanager@local", "appmanager@local-legacy"] }
    }
    certificates = {
      registry    = "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/registry-AbCdEf"
      api         = "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/api-AbCdEf"
      scheduler   = "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/scheduler-AbCdEf"
      appmanager  = "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/appmanager-AbCdEf"
      kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/1"
    }
  }
  assert {
    condition = jsonencode({ for name, policy in aws_iam_role_policy.this : name => sort([for statement in jsondecode(policy.policy).Statement : statement.Resource if statement.Sid == "ReadOwnCertificates"][0]) }) == jsonencode({
      doors   = ["arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/api-AbCdEf"]
      gateway = ["arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/registry-AbCdEf", "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/scheduler-AbCdEf"]
      workers = ["arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/appmanager-AbCdEf"]
    })
    error_message = "Each role reads the secrets of the services that run there."
  }
  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.this : alltrue([for statement in jsondecode(policy.policy).Statement : statement.Sid == "ReadOwnCertificates" || statement.Sid == "ReadStorePassword" if statement.Action == "secretsmanager:GetSecretValue"])])
    error_message = "And no secret besides, but the store's."
  }
  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.this : [for statement in jsondecode(policy.policy).Statement : [statement.Action, statement.Resource, statement.Condition.StringEquals] if statement.Sid == "DecryptThem"] == [["kms:Decrypt", "arn:aws:kms:us-east-1:123456789012:key/1", { "kms:ViaService" = "secretsmanager.us-east-1.amazonaws.com" }]]])
    error_message = "The key is for secrets only."
  }
  assert {
    condition     = local.settings["workers"].CERTIFICATES == "appmanager=arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/appmanager-AbCdEf" && local.settings["gateway"].CERTIFICATES == "registry=arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/registry-AbCdEf scheduler=arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/scheduler-AbCdEf"
    error_message = "Hosts are told the same."
  }
  assert {
    condition     = alltrue([for data in local.user_data : strcontains(data, "fetch_certificates()")])
    error_message = "And how to fetch them."
  }
}

run "tls_to_zookeeper_without_certificates_is_refused" {
  command = plan
  variables {
    zookeeper = { connect = "tls://zk-1.reef.internal:2281/shoal", client_security_group_id = "sg-zookeeper" }
  }
  expect_failures = [aws_launch_template.this["gateway"], aws_launch_template.this["workers"]]
}

run "operators_may_change_this_fleet_only" {
  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_policy.operator.policy).Statement : statement.Condition.StringEquals == { "aws:ResourceTag/shoal:fleet" = "reef" } if statement.Sid == "Instances"])
    error_message = "Instances are found by the fleet's tag."
  }
  assert {
    condition     = alltrue(flatten([for statement in jsondecode(aws_iam_policy.operator.policy).Statement : [for action in flatten([statement.Action]) : can(regex("^[a-z0-9]+:(Describe|Get|List|CancelCommand)", action))] if statement.Resource == "*"]))
    error_message = "What is for all resources changes nothing, but that commands are called back."
  }
  assert {
    condition     = alltrue(flatten([for statement in jsondecode(aws_iam_policy.operator.policy).Statement : [for action in flatten([statement.Action]) : !strcontains(action, "*")]]))
    error_message = "No action is a pattern."
  }
  assert {
    condition     = !strcontains(aws_iam_policy.operator.policy, "kms:")
    error_message = "AWS's own key wants no leave."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_policy.operator.policy).Statement : sort(statement.Resource) if statement.Sid == "WithTheirRoles"] == [sort([for role in aws_iam_role.this : role.arn])]
    error_message = "Only this fleet's roles are handed on."
  }
}

run "sqlite_is_one_hosts" {
  variables {
    store = {
      store                    = { kind = "sqlite", volume_id = "vol-1", volume_arn = "arn:aws:ec2:us-east-1:123456789012:volume/vol-1", zone = "us-east-1b" }
      client_security_group_id = "sg-store"
      bucket                   = "reef-123456789012-us-east-1"
      bucket_arn               = "arn:aws:s3:::reef-123456789012-us-east-1"
      kms_key_arn              = "arn:aws:kms:us-east-1:123456789012:key/1"
    }
    groups = {
      gateway = { services = ["registry", "api", "scheduler"], size = 1 }
      workers = { services = ["appmanager@local", "appmanager@local-legacy"], size = 2, max_size = 9 }
    }
    package   = { wheelhouse = "s3://mine/shoal/wheels" }
    api_cidrs = ["10.20.0.0/16"]
  }
  assert {
    condition     = aws_autoscaling_group.this["gateway"].max_size == 1 && aws_autoscaling_group.this["gateway"].vpc_zone_identifier == toset(["subnet-b"]) && aws_autoscaling_group.this["gateway"].instance_refresh[0].preferences[0].min_healthy_percentage == 0
    error_message = "One host at a time, where the volume is."
  }
  assert {
    condition     = aws_autoscaling_group.this["workers"].max_size == 9 && length(aws_autoscaling_group.this["workers"].vpc_zone_identifier) == 3
    error_message = "App managers are many all the same."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.this["gateway"].policy).Statement : statement.Resource if statement.Sid == "AttachStoreVolume"] == ["arn:aws:ec2:us-east-1:123456789012:volume/vol-1"]
    error_message = "It may attach the store's volume."
  }
  assert {
    condition     = [for policy in [aws_iam_role_policy.this["gateway"], aws_iam_role_policy.this["workers"], aws_iam_policy.operator] : [for statement in jsondecode(policy.policy).Statement : [statement.Action, statement.Resource, statement.Condition.Bool, statement.Condition.StringEquals] if statement.Sid == "LetEc2DecryptVolumes"]] == [[["kms:CreateGrant", "arn:aws:kms:us-east-1:123456789012:key/1", { "kms:GrantIsForAWSResource" = "true" }, { "kms:ViaService" = "ec2.us-east-1.amazonaws.com" }]], [], [["kms:CreateGrant", "arn:aws:kms:us-east-1:123456789012:key/1", { "kms:GrantIsForAWSResource" = "true" }, { "kms:ViaService" = "ec2.us-east-1.amazonaws.com" }]]]
    error_message = "Who attaches the volume, or starts instances, lets EC2 use the key of their disks."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.this["workers"].policy).Statement : statement.Resource if statement.Sid == "FetchWheels"] == ["arn:aws:s3:::mine/shoal/wheels/*"]
    error_message = "Wheels are read below their prefix."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.this["workers"].policy).Statement : statement.Condition.StringEquals if statement.Sid == "EncryptObjects"] == [{ "kms:ViaService" = "s3.us-east-1.amazonaws.com" }]
    error_message = "The fleet's key is for objects in S3."
  }
  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.api : [rule.cidr_ipv4, rule.from_port, rule.to_port, rule.security_group_id == aws_security_group.api.id]] == [["10.20.0.0/16", 7402, 7402, true]]
    error_message = "Who was asked in comes to the api, and to nothing else."
  }
}

run "sqlite_on_two_hosts_is_refused" {
  command = plan
  variables {
    store = {
      store                    = { kind = "sqlite", volume_id = "vol-1", volume_arn = "arn", zone = "us-east-1b" }
      client_security_group_id = "sg-store"
      bucket                   = "reef"
      bucket_arn               = "arn:aws:s3:::reef"
    }
  }
  expect_failures = [aws_launch_template.this["gateway"]]
}

run "a_service_without_its_unit_is_refused" {
  command = plan
  variables {
    units = {
      "shoal-registry.service"  = "[Unit]"
      "shoal-api.service"       = "[Unit]"
      "shoal-scheduler.service" = "[Unit]"
    }
  }
  expect_failures = [aws_launch_template.this["workers"]]
}

run "what_makes_no_sense_is_refused" {
  command = plan
  variables {
    groups        = { gateway = { services = ["registry", "api", "scheduler", "appmanager"], size = 0 } }
    zookeeper     = { connect = "zk-1", client_security_group_id = "sg-zookeeper" }
    package       = { requirement = "shoal", index_url = "http://mine", wheelhouse = "wheels" }
    applications  = { "../etc/passwd" = "main.tf" }
    api_cidrs     = ["0.0.0.0/0"]
    settings      = { PATH = "/tmp" }
    ca_bundle     = "http://mine/ca.pem"
    ami_id        = "debian"
    drain_seconds = 5
    boot_seconds  = 5
    certificates  = { registry = "reef/tls/registry", api = "x", scheduler = "x", appmanager = "x" }
  }
  expect_failures = [var.certificates, var.groups, var.zookeeper, var.package, var.applications, var.api_cidrs, var.settings, var.ca_bundle, var.ami_id, var.drain_seconds, var.boot_seconds]
}

run "neither_do_two_groups_of_registries" {
  command = plan
  variables {
    groups = {
      one = { services = ["registry", "api", "scheduler", "appmanager@local"] }
      two = { services = ["registry"], max_size = 1 }
    }
  }
  expect_failures = [var.groups]
}
