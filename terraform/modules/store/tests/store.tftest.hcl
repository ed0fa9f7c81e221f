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
  mock_resource "aws_db_instance" {
    defaults = {
      address            = "reef-store.abc.us-east-1.rds.amazonaws.com"
      port               = 5432
      master_user_secret = [{ secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds!db-1", kms_key_id = "", secret_status = "active" }]
    }
  }
}

variables {
  fleet           = "reef"
  vpc_id          = "vpc-1"
  private_subnets = { us-east-1a = "subnet-a", us-east-1b = "subnet-b", us-east-1c = "subnet-c" }
}

run "postgres_is_shut_and_kept" {
  assert {
    condition     = aws_db_instance.this[0].multi_az && aws_db_instance.this[0].storage_encrypted && !aws_db_instance.this[0].publicly_accessible
    error_message = "A standby in another zone, encrypted, not public."
  }
  assert {
    condition     = aws_db_instance.this[0].manage_master_user_password && aws_db_instance.this[0].password == null
    error_message = "Secrets Manager has the password."
  }
  assert {
    condition     = aws_db_instance.this[0].deletion_protection && !aws_db_instance.this[0].skip_final_snapshot && aws_db_instance.this[0].backup_retention_period == 7
    error_message = "It is not deleted by accident, and there are backups."
  }
  assert {
    condition     = [for parameter in aws_db_parameter_group.this[0].parameter : parameter.value if parameter.name == "rds.force_ssl"] == ["1"]
    error_message = "TLS only."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.database[0].referenced_security_group_id == aws_security_group.client.id && aws_vpc_security_group_ingress_rule.database[0].cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.database[0].from_port == 5432 && aws_vpc_security_group_ingress_rule.database[0].to_port == 5432
    error_message = "Members of the client group come in, on PostgreSQL's port."
  }
  assert {
    condition     = output.store.kind == "postgres" && output.store.secret_arn == "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds!db-1" && output.store.volume_id == null
    error_message = "The fleet learns where and by which secret."
  }
  assert {
    condition     = length(aws_ebs_volume.sqlite) == 0
    error_message = "No volume that nobody uses."
  }
}

run "the_bucket_is_shut_and_kept" {
  assert {
    condition     = aws_s3_bucket_public_access_block.this.block_public_acls && aws_s3_bucket_public_access_block.this.block_public_policy && aws_s3_bucket_public_access_block.this.ignore_public_acls && aws_s3_bucket_public_access_block.this.restrict_public_buckets
    error_message = "Nothing in it is public."
  }
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled" && !aws_s3_bucket.this.force_destroy
    error_message = "What is deleted can be had back."
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256"
    error_message = "It is encrypted."
  }
  assert {
    condition = [for statement in jsondecode(aws_s3_bucket_policy.this.policy).Statement : [statement.Effect, statement.Principal, statement.Action, statement.Resource, jsonencode(statement.Condition)] if statement.Sid == "TlsOnly"] == [[
      "Deny", "*", "s3:*", ["arn:aws:s3:::reef-123456789012-us-east-1", "arn:aws:s3:::reef-123456789012-us-east-1/*"], jsonencode({ Bool = { "aws:SecureTransport" = "false" } }),
    ]]
    error_message = "What comes without TLS is refused."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_s3_bucket_policy.this.policy).Statement : statement.Effect == "Deny"])
    error_message = "The bucket lets nobody in by itself; roles do."
  }
  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.this.rule[0].noncurrent_version_expiration[0].noncurrent_days == 30 && length(aws_s3_bucket_lifecycle_configuration.this.rule[0].expiration) == 0
    error_message = "Old versions go after a month, current ones stay."
  }
}

run "sqlite_on_a_volume_with_a_key_of_the_fleet" {
  variables {
    kind                = "sqlite"
    kms_key_arn         = "arn:aws:kms:us-east-1:123456789012:key/1"
    expire_objects_days = 90
    protected           = false
    sqlite              = { zone = "us-east-1b" }
  }
  assert {
    condition     = length(aws_db_instance.this) == 0 && length(aws_security_group.database) == 0
    error_message = "No database."
  }
  assert {
    condition     = aws_ebs_volume.sqlite[0].encrypted && aws_ebs_volume.sqlite[0].kms_key_id == "arn:aws:kms:us-east-1:123456789012:key/1" && aws_ebs_volume.sqlite[0].availability_zone == "us-east-1b" && !aws_ebs_volume.sqlite[0].final_snapshot
    error_message = "The volume is where it should be, encrypted, and goes for good when unprotected."
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms" && aws_s3_bucket_lifecycle_configuration.this.rule[0].expiration[0].days == 90 && aws_s3_bucket.this.force_destroy
    error_message = "The bucket has the fleet's key, and forgets after 90 days."
  }
  assert {
    condition     = output.store.zone == "us-east-1b" && output.store.secret_arn == null
    error_message = "The fleet learns the volume's zone."
  }
}

run "what_makes_no_sense_is_refused" {
  command = plan
  variables {
    kind                   = "mysql"
    private_subnets        = { us-east-1a = "subnet-a" }
    postgres               = { instance_class = "t4g.small", storage_gb = 5, backup_days = 0 }
    sqlite                 = { size_gb = 1 }
    bucket                 = "my.bucket"
    kms_key_arn            = "alias/mine"
    keep_old_versions_days = 0
    expire_objects_days    = 0
  }
  expect_failures = [var.kind, var.private_subnets, var.postgres, var.sqlite, var.bucket, var.kms_key_arn, var.keep_old_versions_days, var.expire_objects_days]
}
