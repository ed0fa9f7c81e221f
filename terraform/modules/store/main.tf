data "aws_caller_identity" "current" {}
data "aws_region" "current" {}
data "aws_partition" "current" {}

locals {
  tags     = { "shoal:fleet" = var.fleet }
  postgres = var.kind == "postgres"
  bucket   = coalesce(var.bucket, "${var.fleet}-${data.aws_caller_identity.current.account_id}-${data.aws_region.current.name}")
  zone     = coalesce(var.sqlite.zone, sort(keys(var.private_subnets))[0])
}

# Who is in the client group reaches the database; membership is the permission.
resource "aws_security_group" "client" {
  name        = "${var.fleet}-store-client"
  description = "Whoever may reach the store of fleet ${var.fleet}"
  vpc_id      = var.vpc_id

  tags = merge(local.tags, { Name = "${var.fleet}-store-client" })
}

resource "aws_security_group" "database" {
  count = local.postgres ? 1 : 0

  name        = "${var.fleet}-store"
  description = "PostgreSQL of fleet ${var.fleet}"
  vpc_id      = var.vpc_id

  tags = merge(local.tags, { Name = "${var.fleet}-store" })
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  count = local.postgres ? 1 : 0

  security_group_id            = aws_security_group.database[0].id
  description                  = "PostgreSQL from registries"
  referenced_security_group_id = aws_security_group.client.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432

  tags = local.tags
}

resource "aws_vpc_security_group_egress_rule" "client" {
  count = local.postgres ? 1 : 0

  security_group_id            = aws_security_group.client.id
  description                  = "PostgreSQL"
  referenced_security_group_id = aws_security_group.database[0].id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432

  tags = local.tags
}

resource "aws_db_subnet_group" "this" {
  count = local.postgres ? 1 : 0

  name        = "${var.fleet}-store"
  description = "Private subnets of fleet ${var.fleet}"
  subnet_ids  = values(var.private_subnets)

  tags = local.tags
}

resource "aws_db_parameter_group" "this" {
  count = local.postgres ? 1 : 0

  name_prefix = "${var.fleet}-store-"
  description = "TLS only"
  family      = "postgres${split(".", var.postgres.version)[0]}"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  tags = local.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_instance" "this" {
  count = local.postgres ? 1 : 0

  identifier     = "${var.fleet}-store"
  engine         = "postgres"
  engine_version = var.postgres.version
  instance_class = var.postgres.instance_class
  db_name        = "shoal"
  username       = "shoal"

  # Secrets Manager makes the password and changes it every week. It is never in our state.
  manage_master_user_password = true

  allocated_storage     = var.postgres.storage_gb
  max_allocated_storage = var.postgres.max_storage_gb
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = var.kms_key_arn

  multi_az               = var.postgres.multi_az
  publicly_accessible    = false
  db_subnet_group_name   = aws_db_subnet_group.this[0].name
  vpc_security_group_ids = [aws_security_group.database[0].id]
  parameter_group_name   = aws_db_parameter_group.this[0].name

  backup_retention_period    = var.postgres.backup_days
  auto_minor_version_upgrade = true
  copy_tags_to_snapshot      = true
  deletion_protection        = var.protected
  skip_final_snapshot        = !var.protected
  final_snapshot_identifier  = var.protected ? "${var.fleet}-store-last" : null
  delete_automated_backups   = !var.protected

  tags = merge(local.tags, { Name = "${var.fleet}-store" })
}

resource "aws_ebs_volume" "sqlite" {
  count = local.postgres ? 0 : 1

  availability_zone = local.zone
  size              = var.sqlite.size_gb
  type              = "gp3"
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  final_snapshot    = var.protected

  tags = merge(local.tags, { Name = "${var.fleet}-store", "shoal:role" = "services" })
}

resource "aws_s3_bucket" "this" {
  bucket        = local.bucket
  force_destroy = !var.protected

  tags = merge(local.tags, { Name = local.bucket })
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket = aws_s3_bucket.this.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    bucket_key_enabled = var.kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.keep_old_versions_days
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
    dynamic "expiration" {
      for_each = var.expire_objects_days == null ? [] : [var.expire_objects_days]
      content {
        days = expiration.value
      }
    }
  }

  # Old versions expire only where versions are kept.
  depends_on = [aws_s3_bucket_versioning.this]
}

locals {
  bucket_arn = "arn:${data.aws_partition.current.partition}:s3:::${local.bucket}"
}

# Written here and not by aws_iam_policy_document, which a mocked provider leaves empty: what tests
# read is what AWS gets.
resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        Sid       = "RecentTlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
        Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
      },
    ]
  })

  # A policy that is put while public access is still being blocked is refused now and then.
  depends_on = [aws_s3_bucket_public_access_block.this]
}
