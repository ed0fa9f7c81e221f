# What hosts may do: a role for each group, by what its services need.

locals {
  wheels   = split("/", trimprefix(coalesce(var.package.wheelhouse, "s3://-/-"), "s3://"))
  bucket   = local.wheels[0]
  prefix   = join("/", slice(local.wheels, 1, length(local.wheels)))
  ca_in_s3 = startswith(coalesce(var.ca_bundle, "-"), "s3://")

  of_fleet = { StringEquals = { "aws:ResourceTag/shoal:fleet" = var.fleet } }

  # Who attaches a volume, or starts an instance that has one, lets EC2 use the key for it: EC2 alone,
  # and for nothing but volumes.
  use_of_key = [
    for key in compact([var.store.kms_key_arn]) : {
      Sid      = "LetEc2DecryptVolumes"
      Effect   = "Allow"
      Action   = "kms:CreateGrant"
      Resource = key
      Condition = {
        Bool         = { "kms:GrantIsForAWSResource" = "true" }
        StringEquals = { "kms:ViaService" = "ec2.${local.region}.amazonaws.com" }
      }
    }
  ]

  # Each statement with whether the group's hosts need it.
  statements = {
    for name, group in local.groups : name => [
      for wanted in [
        {
          needed    = true
          statement = jsondecode(file("${path.module}/../../shared/ssm-agent.json"))
        },
        {
          needed = true
          statement = {
            Sid      = "CompleteOwnLifecycleHooks"
            Effect   = "Allow"
            Action   = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
            Resource = "${local.arn}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${group.full_name}"
          }
        },
        {
          # Descriptions can't be limited to resources.
          needed = true
          statement = {
            Sid       = "LookForHooks"
            Effect    = "Allow"
            Action    = ["autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeLifecycleHooks"]
            Resource  = "*"
            Condition = { StringEquals = { "aws:RequestedRegion" = local.region } }
          }
        },
        {
          needed = group.objects
          statement = {
            Sid      = "KeepObjects"
            Effect   = "Allow"
            Action   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
            Resource = "${var.store.bucket_arn}/objects/*"
          }
        },
        {
          needed = group.objects
          statement = {
            Sid      = "FetchApplications"
            Effect   = "Allow"
            Action   = "s3:GetObject"
            Resource = "${var.store.bucket_arn}/applications/*"
          }
        },
        {
          needed = group.objects
          statement = {
            Sid       = "ListThem"
            Effect    = "Allow"
            Action    = "s3:ListBucket"
            Resource  = var.store.bucket_arn
            Condition = { StringLike = { "s3:prefix" = ["objects/*", "applications/*", "applications"] } }
          }
        },
        {
          needed = group.objects && var.store.kms_key_arn != null
          statement = {
            Sid       = "EncryptObjects"
            Effect    = "Allow"
            Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
            Resource  = var.store.kms_key_arn
            Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } }
          }
        },
        {
          needed = group.postgres
          statement = {
            Sid      = "ReadStorePassword"
            Effect   = "Allow"
            Action   = "secretsmanager:GetSecretValue"
            Resource = var.store.store.secret_arn
          }
        },
        {
          needed = group.postgres && local.ca_in_s3
          statement = {
            Sid      = "FetchCertificates"
            Effect   = "Allow"
            Action   = "s3:GetObject"
            Resource = "${local.arn}:s3:::${trimprefix(coalesce(var.ca_bundle, "-"), "s3://")}"
          }
        },
        {
          needed = length(group.secrets) > 0
          statement = {
            Sid      = "ReadOwnCertificates"
            Effect   = "Allow"
            Action   = "secretsmanager:GetSecretValue"
            Resource = values(group.secrets)
          }
        },
        {
          needed = length(group.secrets) > 0 && try(var.certificates.kms_key_arn, null) != null
          statement = {
            Sid       = "DecryptThem"
            Effect    = "Allow"
            Action    = "kms:Decrypt"
            Resource  = try(var.certificates.kms_key_arn, null)
            Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${local.region}.amazonaws.com" } }
          }
        },
        {
          needed = group.single
          statement = {
            Sid      = "AttachStoreVolume"
            Effect   = "Allow"
            Action   = "ec2:AttachVolume"
            Resource = var.store.store.volume_arn
          }
        },
        {
          needed = group.single
          statement = {
            Sid      = "AttachItToOwnInstance"
            Effect   = "Allow"
            Action   = "ec2:AttachVolume"
            Resource = "${local.arn}:ec2:${local.region}:${local.account}:instance/*"
            Condition = {
              StringEquals = {
                "aws:ResourceTag/shoal:fleet" = var.fleet
                "aws:ResourceTag/shoal:role"  = "services"
                "aws:ResourceTag/shoal:group" = name
              }
            }
          }
        },
        {
          needed    = group.single && length(local.use_of_key) > 0
          statement = try(local.use_of_key[0], null)
        },
        {
          needed = var.package.wheelhouse != null
          statement = {
            Sid      = "FetchWheels"
            Effect   = "Allow"
            Action   = "s3:GetObject"
            Resource = "${local.arn}:s3:::${local.bucket}/${local.prefix}/*"
          }
        },
        {
          needed = var.package.wheelhouse != null
          statement = {
            Sid       = "ListWheels"
            Effect    = "Allow"
            Action    = "s3:ListBucket"
            Resource  = "${local.arn}:s3:::${local.bucket}"
            Condition = { StringLike = { "s3:prefix" = [local.prefix, "${local.prefix}/*"] } }
          }
        },
      ] : wanted.statement if wanted.needed
    ]
  }
}

resource "aws_iam_role" "this" {
  for_each = local.groups

  name = "${var.fleet}-${local.region}-${each.key}"
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

resource "aws_iam_role_policy" "this" {
  for_each = local.groups

  name   = "host"
  role   = aws_iam_role.this[each.key].id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.statements[each.key] })
}

resource "aws_iam_instance_profile" "this" {
  for_each = local.groups

  name = aws_iam_role.this[each.key].name
  role = aws_iam_role.this[each.key].name

  tags = each.value.tags
}

# What whoever runs `shoal fleet` needs, to be attached to people's roles: changes to this fleet's
# instances and groups, and to nobody else's. Descriptions can't be limited to resources.
resource "aws_iam_policy" "operator" {
  name        = "${var.fleet}-${local.region}-operator"
  description = "Operate fleet ${var.fleet}: list, restart, stop, start, terminate, refresh, and sessions through SSM"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.use_of_key, [
      {
        Sid    = "Look"
        Effect = "Allow"
        Action = [
          "autoscaling:DescribeAutoScalingGroups",
          "autoscaling:DescribeAutoScalingInstances",
          "autoscaling:DescribeInstanceRefreshes",
          "autoscaling:DescribeLifecycleHooks",
          "ec2:DescribeInstances",
          "ec2:DescribeInstanceStatus",
          "ec2:DescribeLaunchTemplates",
          "ec2:DescribeLaunchTemplateVersions",
          "ssm:DescribeInstanceInformation",
          "ssm:GetCommandInvocation",
          "ssm:ListCommandInvocations",
          "ssm:ListCommands",
        ]
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = local.region } }
      },
      {
        Sid       = "Instances"
        Effect    = "Allow"
        Action    = ["ec2:RebootInstances", "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"]
        Resource  = "${local.arn}:ec2:${local.region}:${local.account}:instance/*"
        Condition = local.of_fleet
      },
      {
        Sid    = "Groups"
        Effect = "Allow"
        Action = [
          "autoscaling:CancelInstanceRefresh",
          "autoscaling:CompleteLifecycleAction",
          "autoscaling:RecordLifecycleActionHeartbeat",
          "autoscaling:RollbackInstanceRefresh",
          "autoscaling:SetDesiredCapacity",
          "autoscaling:SetInstanceHealth",
          "autoscaling:StartInstanceRefresh",
          "autoscaling:TerminateInstanceInAutoScalingGroup",
        ]
        Resource  = "${local.arn}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${var.fleet}-*"
        Condition = { StringEquals = { "autoscaling:ResourceTag/shoal:fleet" = var.fleet } }
      },
      {
        Sid       = "CommandsAndSessionsOnInstances"
        Effect    = "Allow"
        Action    = ["ssm:SendCommand", "ssm:StartSession"]
        Resource  = "${local.arn}:ec2:${local.region}:${local.account}:instance/*"
        Condition = { StringEquals = { "ssm:resourceTag/shoal:fleet" = var.fleet } }
      },
      {
        Sid    = "ByTheseDocuments"
        Effect = "Allow"
        Action = ["ssm:SendCommand", "ssm:StartSession"]
        Resource = [
          "${local.arn}:ssm:${local.region}::document/AWS-RunShellScript",
          "${local.arn}:ssm:${local.region}::document/AWS-StartPortForwardingSession",
          "${local.arn}:ssm:${local.region}:${local.account}:document/SSM-SessionManagerRunShell",
        ]
      },
      # An upgrade to a version of a launch template is a launch in the eyes of IAM: by this fleet's
      # templates only, and with its hosts' roles.
      {
        Sid    = "LaunchByTemplate"
        Effect = "Allow"
        Action = "ec2:RunInstances"
        Resource = [
          "${local.arn}:ec2:${local.region}:${local.account}:*/*",
          "${local.arn}:ec2:${local.region}::image/*",
        ]
        Condition = {
          ArnEquals = { "ec2:LaunchTemplate" = [for template in aws_launch_template.this : template.arn] }
          Bool      = { "ec2:IsLaunchTemplateResource" = "true" }
        }
      },
      {
        Sid       = "TagWhatIsLaunched"
        Effect    = "Allow"
        Action    = "ec2:CreateTags"
        Resource  = "${local.arn}:ec2:${local.region}:${local.account}:*/*"
        Condition = { StringEquals = { "ec2:CreateAction" = "RunInstances" } }
      },
      {
        Sid       = "WithTheirRoles"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = [for role in aws_iam_role.this : role.arn]
        Condition = { StringEquals = { "iam:PassedToService" = "ec2.amazonaws.com" } }
      },
      {
        Sid       = "OwnCommands"
        Effect    = "Allow"
        Action    = "ssm:CancelCommand"
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = local.region } }
      },
      {
        Sid      = "OwnSessions"
        Effect   = "Allow"
        Action   = ["ssm:ResumeSession", "ssm:TerminateSession"]
        Resource = "${local.arn}:ssm:*:*:session/$${aws:username}-*"
      },
    ])
  })

  tags = { "shoal:fleet" = var.fleet }
}
