mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
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
  mock_resource "aws_db_instance" {
    defaults = {
      address            = "reef-store.abc.eu-central-1.rds.amazonaws.com"
      port               = 5432
      master_user_secret = [{ secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds!db-1", kms_key_id = "", secret_status = "active" }]
    }
  }
}

variables {
  fleet  = "reef"
  region = "eu-central-1"
}

run "says_what_the_command_line_reads" {
  variables {
    zookeeper_nodes = 5
  }
  assert {
    condition     = [output.fleet, output.region, output.autoscaling_groups, output.zookeeper_groups] == ["reef", "eu-central-1", { gateway = "reef-gateway", workers = "reef-workers" }, [for number in range(1, 6) : "reef-zookeeper-${number}"]]
    error_message = "Fleet, region and groups are said."
  }
  assert {
    condition     = startswith(output.zookeeper, "zk-1.reef.internal:2181,") && endswith(output.zookeeper, ",zk-5.reef.internal:2181/shoal") && output.objects == "s3://${output.bucket}/objects"
    error_message = "ZooKeeper and objects are said as services take them."
  }
}

run "sqlite_shrinks_the_gateway" {
  command = plan
  variables {
    store = "sqlite"
  }
  assert {
    condition     = var.gateway.size == 3 && module.fleet.autoscaling_groups != null
    error_message = "Three hosts are asked for by default, and one is made, else the fleet module refuses."
  }
}

run "one_variable_shuts_everything" {
  command = plan
  variables {
    certificates = {
      registry   = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:reef/tls/registry-AbCdEf"
      api        = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:reef/tls/api-AbCdEf"
      scheduler  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:reef/tls/scheduler-AbCdEf"
      appmanager = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:reef/tls/appmanager-AbCdEf"
      zookeeper  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:reef/tls/zookeeper-AbCdEf"
    }
  }
  assert {
    condition     = output.zookeeper == "tls://zk-1.reef.internal:2281,zk-2.reef.internal:2281,zk-3.reef.internal:2281/shoal"
    error_message = "Services, which would refuse tls:// without certificates of their own, and nodes speak TLS: ${output.zookeeper}."
  }
}

run "what_makes_no_sense_is_refused" {
  command = plan
  variables {
    fleet           = "R"
    region          = "Frankfurt"
    zookeeper_nodes = 2
    store           = "mysql"
  }
  expect_failures = [var.fleet, var.region, var.zookeeper_nodes, var.store]
}
