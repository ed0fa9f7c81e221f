data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

data "aws_ec2_instance_type" "host" {
  for_each      = toset([for group in var.groups : group.instance_type])
  instance_type = each.key
}

data "aws_ssm_parameter" "ami" {
  for_each = toset(var.ami_id == null ? values(local.architectures) : [])
  name     = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${each.key}"
}

locals {
  region  = data.aws_region.current.name
  account = data.aws_caller_identity.current.account_id
  arn     = "arn:${data.aws_partition.current.partition}"
  tags    = { "shoal:fleet" = var.fleet, "shoal:role" = "services" }

  architectures = {
    for name, type in data.aws_ec2_instance_type.host :
    name => one([for kind in type.supported_architectures : kind if contains(["arm64", "x86_64"], kind)])
  }

  launch_hook = "shoal-serving"
  drain_hook  = "shoal-drain"

  # Each group with what follows from its services.
  groups = {
    for name, group in var.groups : name => merge(group, {
      full_name = "${var.fleet}-${name}"
      tags      = merge(local.tags, { "shoal:group" = name, Name = "${var.fleet}-${name}" })
      registry  = contains(group.services, "registry")
      api       = contains(group.services, "api")
      objects   = length([for service in group.services : service if service == "api" || startswith(service, "appmanager@")]) > 0
      postgres  = contains(group.services, "registry") && var.store.store.kind == "postgres"
      # SQLite's file is one host's: no second one while it is replaced.
      single = contains(group.services, "registry") && var.store.store.kind == "sqlite"
      # Each service with the secret of its certificate; app managers of all flavors share theirs.
      secrets = var.certificates == null ? {} : { for kind in distinct([for service in group.services : split("@", service)[0]]) : kind => var.certificates[kind] }
      units   = [for service in group.services : startswith(service, "appmanager@") ? "shoal-appmanager@.service" : "shoal-${service}.service"]
    })
  }
}

# What users may run ----------------------------------------------------------------------------

resource "aws_s3_object" "application" {
  for_each = var.applications

  bucket      = var.store.bucket
  key         = "applications/${each.key}"
  source      = each.value
  source_hash = filemd5(each.value)

  tags = { "shoal:fleet" = var.fleet }
}

# The instances -----------------------------------------------------------------------------------

locals {
  store_url = {
    postgres = "postgresql://${coalesce(var.store.store.username, "-")}@${coalesce(var.store.store.address, "-")}:${coalesce(var.store.store.port, 5432)}/${coalesce(var.store.store.database, "-")}?passfile=/run/shoal-store/pgpass&${var.ca_bundle == null ? "sslmode=require" : "sslmode=verify-full&sslrootcert=/etc/shoal/rds.pem"}"
    sqlite   = "sqlite:////var/lib/shoal/store/registry.db"
  }[var.store.store.kind]

  units = merge(var.units, { "shoal-lifecycle.service" = file("${path.module}/shoal-lifecycle.service") })

  settings = {
    for name, group in local.groups : name => {
      FLEET           = var.fleet
      GROUP           = group.full_name
      REGION          = local.region
      SERVICES        = join(" ", sort(group.services))
      LAUNCH_HOOK     = local.launch_hook
      DRAIN_HOOK      = local.drain_hook
      DRAIN_SECONDS   = tostring(var.drain_seconds)
      REQUIREMENT     = var.package.requirement
      INDEX_URL       = var.package.index_url == null ? "" : var.package.index_url
      WHEELHOUSE      = var.package.wheelhouse == null ? "" : var.package.wheelhouse
      ZOOKEEPER       = var.zookeeper.connect
      BUCKET          = var.store.bucket
      APPLICATIONS    = sha256(jsonencode({ for place, file in var.applications : place => filesha256(file) }))
      STORE_URL       = group.registry ? local.store_url : ""
      SECRET          = group.postgres ? var.store.store.secret_arn : ""
      PASSFILE_PREFIX = group.postgres ? "${var.store.store.address}:${var.store.store.port}:${var.store.store.database}:${var.store.store.username}" : ""
      CA_BUNDLE       = group.postgres && var.ca_bundle != null ? var.ca_bundle : ""
      VOLUME          = group.single ? var.store.store.volume_id : ""
      CERTIFICATES    = join(" ", [for service in sort(keys(group.secrets)) : "${service}=${group.secrets[service]}"])
      SLOTS           = tostring(group.slots)
      SETTINGS        = join("\n", [for key in sort(keys(var.settings)) : "${key}=${var.settings[key]}"])
    }
  }

  user_data = {
    for name, group in local.groups : name => join("\n", concat(
      ["#!/bin/bash"],
      [for key, value in local.settings[name] : "${key}='${replace(value, "'", "'\\''")}'"],
      ["write_units() {"],
      [
        for file in concat(sort(distinct(group.units)), ["shoal-lifecycle.service"]) :
        "cat >\"$1/${file}\" <<'END_OF_UNIT'\n${lookup(local.units, file, "")}\nEND_OF_UNIT"
      ],
      ["}"],
      [
        file("${path.module}/../../shared/common.sh"),
      ],
      var.certificates == null ? [] : [file("${path.module}/../../shared/certificates.sh")],
      [
        file("${path.module}/services.sh"),
        "main",
        "",
      ],
    ))
  }
}

resource "aws_launch_template" "this" {
  for_each = local.groups

  name                   = each.value.full_name
  description            = "Hosts of group ${each.key} of fleet ${var.fleet}"
  image_id               = var.ami_id != null ? var.ami_id : nonsensitive(data.aws_ssm_parameter.ami[local.architectures[each.value.instance_type]].value)
  instance_type          = each.value.instance_type
  update_default_version = true

  # Packed, for units and scripts are more than the 16 KB that user data may have; cloud-init unpacks.
  user_data = base64gzip(local.user_data[each.key])

  vpc_security_group_ids = compact([
    aws_security_group.services.id,
    var.zookeeper.client_security_group_id,
    each.value.postgres ? var.store.client_security_group_id : "",
    each.value.api ? aws_security_group.api.id : "",
  ])

  iam_instance_profile {
    arn = aws_iam_instance_profile.this[each.key].arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = each.value.disk_gb
      volume_type           = "gp3"
      encrypted             = true
      kms_key_id            = var.store.kms_key_arn
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])
    content {
      resource_type = tag_specifications.value
      tags          = each.value.tags
    }
  }

  tags = each.value.tags

  lifecycle {
    precondition {
      condition     = alltrue([for unit in each.value.units : contains(keys(var.units), unit)])
      error_message = "Group ${each.key} needs ${join(", ", each.value.units)}, of which units lacks some; pass what deploy/systemd holds."
    }
    precondition {
      condition     = !each.value.single || (each.value.size == 1 && coalesce(each.value.max_size, 1) == 1)
      error_message = "SQLite's volume is one host's: give group ${each.key}, which runs the registry, the size 1, or use PostgreSQL."
    }
    precondition {
      condition     = var.certificates != null || !startswith(var.zookeeper.connect, "tls://")
      error_message = "ZooKeeper demands certificates (tls://), and the services have none: give certificates here too."
    }
    precondition {
      condition     = length(base64gzip(local.user_data[each.key])) * 3 / 4 <= 16384
      error_message = "The user data of group ${each.key} is more than 16 KB, packed."
    }
  }
}

resource "aws_autoscaling_group" "this" {
  for_each = local.groups

  name                      = each.value.full_name
  min_size                  = each.value.size
  desired_capacity          = each.value.size
  max_size                  = each.value.single ? 1 : coalesce(each.value.max_size, each.value.size + 1)
  vpc_zone_identifier       = each.value.single ? [var.private_subnets[var.store.store.zone]] : values(var.private_subnets)
  health_check_type         = "EC2"
  health_check_grace_period = 300
  default_instance_warmup   = 30
  wait_for_capacity_timeout = "${ceil(var.boot_seconds / 60) + 10}m"

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  # Made with the group, before its first instance: a host counts when its services are announced.
  initial_lifecycle_hook {
    name                 = local.launch_hook
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    heartbeat_timeout    = var.boot_seconds
    default_result       = "ABANDON"
  }

  # A new launch template replaces hosts: another starts and serves (the hook above) before an old
  # one drains (the hook below) and goes. When new ones don't come up, the old template is back.
  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = each.value.single ? 0 : 100
      max_healthy_percentage = each.value.single ? 100 : 150
      auto_rollback          = true
      skip_matching          = true
    }
  }

  dynamic "tag" {
    for_each = each.value.tags
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  depends_on = [aws_iam_role_policy.this, aws_s3_object.application, var.network_ready]
}

# The agent on the host drains its services and completes this. Should it not, the host goes anyway,
# and its jobs are started elsewhere when their leases have expired.
resource "aws_autoscaling_lifecycle_hook" "drain" {
  for_each = local.groups

  name                   = local.drain_hook
  autoscaling_group_name = aws_autoscaling_group.this[each.key].name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = var.drain_seconds
  default_result         = "CONTINUE"
}
