# Services call each other without anything between them: each listens on a port of its own, and app
# managers of further flavors on the ports that follow.
resource "aws_security_group" "services" {
  name        = "${var.fleet}-services"
  description = "Services of fleet ${var.fleet}"
  vpc_id      = var.vpc_id

  tags = merge(local.tags, { Name = "${var.fleet}-services" })
}

resource "aws_vpc_security_group_ingress_rule" "services" {
  security_group_id            = aws_security_group.services.id
  description                  = "gRPC from services"
  referenced_security_group_id = aws_security_group.services.id
  ip_protocol                  = "tcp"
  from_port                    = 7401
  to_port                      = 7419

  tags = local.tags
}

resource "aws_vpc_security_group_egress_rule" "services" {
  security_group_id            = aws_security_group.services.id
  description                  = "gRPC to services"
  referenced_security_group_id = aws_security_group.services.id
  ip_protocol                  = "tcp"
  from_port                    = 7401
  to_port                      = 7419

  tags = local.tags
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.services.id
  description       = "Packages, SSM, S3 and AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443

  tags = local.tags
}

resource "aws_security_group" "api" {
  name        = "${var.fleet}-api"
  description = "The api of fleet ${var.fleet}, for callers outside"
  vpc_id      = var.vpc_id

  tags = merge(local.tags, { Name = "${var.fleet}-api" })
}

resource "aws_vpc_security_group_ingress_rule" "api" {
  for_each = toset(var.api_cidrs)

  security_group_id = aws_security_group.api.id
  description       = "gRPC from ${each.key}"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 7402
  to_port           = 7402

  tags = local.tags
}
