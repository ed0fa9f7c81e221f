data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

data "aws_ec2_instance_type" "node" {
  instance_type = var.instance_type
}

data "aws_ssm_parameter" "ami" {
  count = var.ami_id == null ? 1 : 0
  name  = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${local.architecture}"
}

locals {
  architecture = one([for name in data.aws_ec2_instance_type.node.supported_architectures : name if contains(["arm64", "x86_64"], name)])
  ami          = var.ami_id != null ? var.ami_id : nonsensitive(data.aws_ssm_parameter.ami[0].value)

  region  = data.aws_region.current.name
  account = data.aws_caller_identity.current.account_id
  arn     = "arn:${data.aws_partition.current.partition}"
  tags    = { "shoal:fleet" = var.fleet, "shoal:role" = "zookeeper" }
  domain  = "${var.fleet}.internal"

  nodes = {
    for number in range(1, var.size + 1) : tostring(number) => {
      zone  = var.zones[(number - 1) % 3]
      name  = "zk-${number}.${local.domain}"
      group = "${var.fleet}-zookeeper-${number}"
      tags  = merge(local.tags, { "shoal:node" = tostring(number), Name = "${var.fleet}-zookeeper-${number}" })
    }
  }

  # With certificates there is no door for plain text, and nodes ask each other how they do.
  tls          = var.certificates != null
  client_port  = local.tls ? 2281 : 2181
  peer_ports   = toset(concat(["2888", "3888"], local.tls ? ["2281"] : []))
  certificates = local.tls ? "zookeeper=${var.certificates.zookeeper}" : ""

  artifact = startswith(var.archive.url, "s3://") ? trimprefix(var.archive.url, "s3://") : ""
}

# Names -----------------------------------------------------------------------------------------

resource "aws_route53_zone" "this" {
  name    = local.domain
  comment = "Fleet ${var.fleet}, seen from its VPC only"

  vpc {
    vpc_id = var.vpc_id
  }

  tags = local.tags
}

resource "aws_route53_record" "node" {
  for_each = local.nodes

  zone_id = aws_route53_zone.this.zone_id
  name    = each.value.name
  type    = "A"
  ttl     = 60
  records = [aws_network_interface.node[each.key].private_ip]
}

# Who may talk to whom --------------------------------------------------------------------------

# Who is in the client group reaches the ensemble; membership is the permission.
resource "aws_security_group" "client" {
  name        = "${var.fleet}-zookeeper-client"
  description = "Whoever may reach ZooKeeper of fleet ${var.fleet}"
  vpc_id      = var.vpc_id

  tags = { "shoal:fleet" = var.fleet, Name = "${var.fleet}-zookeeper-client" }
}

resource "aws_security_group" "node" {
  name        = "${var.fleet}-zookeeper"
  description = "ZooKeeper of fleet ${var.fleet}"
  vpc_id      = var.vpc_id

  tags = merge(local.tags, { Name = "${var.fleet}-zookeeper" })
}

resource "aws_vpc_security_group_egress_rule" "client" {
  security_group_id            = aws_security_group.client.id
  description                  = "ZooKeeper"
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = local.client_port
  to_port                      = local.client_port

  tags = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "client" {
  security_group_id            = aws_security_group.node.id
  description                  = "Clients"
  referenced_security_group_id = aws_security_group.client.id
  ip_protocol                  = "tcp"
  from_port                    = local.client_port
  to_port                      = local.client_port

  tags = local.tags
}

# Followers reach the leader on 2888, all reach all on 3888 to elect it.
resource "aws_vpc_security_group_ingress_rule" "peer" {
  for_each = local.peer_ports

  security_group_id            = aws_security_group.node.id
  description                  = "The other nodes"
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)

  tags = local.tags
}

resource "aws_vpc_security_group_egress_rule" "peer" {
  for_each = local.peer_ports

  security_group_id            = aws_security_group.node.id
  description                  = "The other nodes"
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)

  tags = local.tags
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.node.id
  description       = "Packages, SSM and AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443

  tags = local.tags
}

# What a node keeps when its instance is replaced -------------------------------------------------

resource "aws_network_interface" "node" {
  for_each = local.nodes

  subnet_id       = var.private_subnets[each.value.zone]
  security_groups = [aws_security_group.node.id]
  description     = "Fixed address of ${each.value.name}"

  tags = each.value.tags

  # The instance attaches it by itself.
  lifecycle {
    ignore_changes = [attachment]
  }
}

resource "aws_ebs_volume" "node" {
  for_each = local.nodes

  availability_zone = each.value.zone
  size              = var.volume_gb
  type              = "gp3"
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  final_snapshot    = var.protected

  tags = each.value.tags
}

# What a node may do ------------------------------------------------------------------------------

resource "aws_iam_role" "node" {
  for_each = local.nodes

  name = "${var.fleet}-${local.region}-zookeeper-${each.key}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })

  tags = each.value.tags
}

locals {
  own_certificate = concat(
    [
      for certificates in var.certificates[*] : {
        Sid      = "ReadOwnCertificate"
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = certificates.zookeeper
      }
    ],
    [
      for key in compact(var.certificates[*].kms_key_arn) : {
        Sid       = "DecryptIt"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = key
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${local.region}.amazonaws.com" } }
      }
    ],
  )
}

# A role for each node, so that none can take what is another's.
resource "aws_iam_role_policy" "node" {
  for_each = local.nodes

  name = "node"
  role = aws_iam_role.node[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        jsondecode(file("${path.module}/../../shared/ssm-agent.json")),
        {
          Sid    = "AttachOwnVolumeAndInterface"
          Effect = "Allow"
          Action = ["ec2:AttachVolume", "ec2:AttachNetworkInterface"]
          Resource = [
            "${local.arn}:ec2:${local.region}:${local.account}:volume/${aws_ebs_volume.node[each.key].id}",
            "${local.arn}:ec2:${local.region}:${local.account}:network-interface/${aws_network_interface.node[each.key].id}",
          ]
        },
        {
          Sid      = "AttachThemToOwnInstance"
          Effect   = "Allow"
          Action   = ["ec2:AttachVolume", "ec2:AttachNetworkInterface"]
          Resource = "${local.arn}:ec2:${local.region}:${local.account}:instance/*"
          Condition = {
            StringEquals = {
              "aws:ResourceTag/shoal:fleet" = var.fleet
              "aws:ResourceTag/shoal:role"  = "zookeeper"
              "aws:ResourceTag/shoal:node"  = each.key
            }
          }
        },
        {
          Sid      = "AskForAnotherInstance"
          Effect   = "Allow"
          Action   = "autoscaling:SetInstanceHealth"
          Resource = "${local.arn}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${each.value.group}"
        },
      ],
      [
        # Who attaches a volume lets EC2 use the key for it: EC2 alone, and for nothing but volumes.
        for key in compact([var.kms_key_arn]) : {
          Sid      = "LetEc2DecryptVolumes"
          Effect   = "Allow"
          Action   = "kms:CreateGrant"
          Resource = key
          Condition = {
            Bool         = { "kms:GrantIsForAWSResource" = "true" }
            StringEquals = { "kms:ViaService" = "ec2.${local.region}.amazonaws.com" }
          }
        }
      ],
      [
        for archive in compact([local.artifact]) : {
          Sid      = "FetchArchive"
          Effect   = "Allow"
          Action   = "s3:GetObject"
          Resource = "${local.arn}:s3:::${archive}"
        }
      ],
      local.own_certificate,
    )
  })
}

resource "aws_iam_instance_profile" "node" {
  for_each = local.nodes

  name = aws_iam_role.node[each.key].name
  role = aws_iam_role.node[each.key].name

  tags = each.value.tags
}

# The instances -----------------------------------------------------------------------------------

locals {
  user_data = {
    for number, node in local.nodes : number => join("\n", concat([
      "#!/bin/bash",
      "NODE=${number}",
      "ENSEMBLE='${join(" ", [for peer in local.nodes : peer.name])}'",
      "ADDRESS=${aws_network_interface.node[number].private_ip}",
      "INTERFACE=${aws_network_interface.node[number].id}",
      "VOLUME=${aws_ebs_volume.node[number].id}",
      "GROUP=${node.group}",
      "REGION=${local.region}",
      "ARCHIVE='${var.archive.url}'",
      "ARCHIVE_SHA256=${var.archive.sha256}",
      "HEAP_MB=${var.heap_mb}",
      "CERTIFICATES='${local.certificates}'",
      file("${path.module}/../../shared/common.sh"),
      ],
      local.tls ? [file("${path.module}/../../shared/certificates.sh"), file("${path.module}/tls.sh")] : [],
      [
        file("${path.module}/zookeeper.sh"),
        "main",
        "",
      ],
    ))
  }
}

resource "aws_launch_template" "node" {
  for_each = local.nodes

  name                   = each.value.group
  description            = "ZooKeeper node ${each.key} of fleet ${var.fleet}"
  image_id               = local.ami
  instance_type          = var.instance_type
  vpc_security_group_ids = [aws_security_group.node.id]
  update_default_version = true

  # What TLS adds is more than the 16 KB that user data may have; packed, cloud-init unpacks it.
  user_data = local.tls ? base64gzip(local.user_data[each.key]) : base64encode(local.user_data[each.key])

  iam_instance_profile {
    arn = aws_iam_instance_profile.node[each.key].arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = 12
      volume_type           = "gp3"
      encrypted             = true
      kms_key_id            = var.kms_key_arn
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
}

# One group a node, of one instance in the node's zone: when that dies, another takes its place, its
# address and its data. Changes reach a node when its instance is replaced; an instance refresh by
# Terraform would replace all nodes at once, so that is done by hand, one after the other.
resource "aws_autoscaling_group" "node" {
  for_each = local.nodes

  name                      = each.value.group
  min_size                  = 1
  max_size                  = 1
  desired_capacity          = 1
  vpc_zone_identifier       = [var.private_subnets[each.value.zone]]
  health_check_type         = "EC2"
  health_check_grace_period = 900
  default_instance_warmup   = 120
  wait_for_capacity_timeout = "10m"

  launch_template {
    id      = aws_launch_template.node[each.key].id
    version = aws_launch_template.node[each.key].latest_version
  }

  dynamic "tag" {
    for_each = each.value.tags
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  # Before it boots: what it may do, and the names of all nodes.
  depends_on = [aws_iam_role_policy.node, aws_route53_record.node, var.network_ready]
}
