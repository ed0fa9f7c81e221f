mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "us-east-1" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-1d", "us-east-1c", "us-east-1b", "us-east-1a"] }
  }
}

variables {
  fleet = "reef"
}

run "three_zones_with_one_nat" {
  assert {
    condition     = keys(aws_subnet.private) == ["us-east-1a", "us-east-1b", "us-east-1c"]
    error_message = "The region's first three zones have private subnets."
  }
  assert {
    condition     = length(distinct([for subnet in concat(values(aws_subnet.private), values(aws_subnet.public)) : subnet.cidr_block])) == 6
    error_message = "Six subnets have addresses of their own."
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "Nothing gets a public address by itself."
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.nat) == 3
    error_message = "One NAT gateway serves three zones."
  }
  assert {
    condition     = join(" ", keys(aws_vpc_endpoint.interface)) == "ec2messages ssm ssmmessages"
    error_message = "SSM is reached without the internet."
  }
  assert {
    condition     = length(aws_vpc_endpoint.s3.route_table_ids) > 0 && aws_vpc_endpoint.s3.service_name == "com.amazonaws.us-east-1.s3"
    error_message = "S3 is reached without the internet."
  }
  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "The default security group lets nothing through."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints.cidr_ipv4 == var.cidr && aws_vpc_security_group_ingress_rule.endpoints.from_port == 443
    error_message = "Endpoints hear the VPC, on 443."
  }
}

run "a_nat_a_zone" {
  variables {
    nat = "per_zone"
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_eip.nat) == 3
    error_message = "Three zones, three gateways."
  }
}

run "no_nat" {
  variables {
    nat                 = "none"
    interface_endpoints = []
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_route.nat) == 0
    error_message = "Nothing leads out."
  }
  assert {
    condition     = setunion(toset(keys(aws_vpc_endpoint.interface)), []) == toset(["autoscaling", "ec2", "ec2messages", "secretsmanager", "ssm", "ssmmessages"])
    error_message = "What instances need is reached by endpoints."
  }
}

run "named_zones" {
  variables {
    zones = ["us-east-1b", "us-east-1d", "us-east-1f"]
  }
  assert {
    condition     = output.zones == tolist(["us-east-1b", "us-east-1d", "us-east-1f"])
    error_message = "Zones are those that were named."
  }
}

run "what_makes_no_sense_is_refused" {
  command = plan
  variables {
    fleet               = "Reef"
    zones               = ["us-east-1a", "us-east-1a", "us-east-1b"]
    cidr                = "10.0.0.0/28"
    nat                 = "some"
    interface_endpoints = ["com.amazonaws/ssm"]
  }
  expect_failures = [var.fleet, var.zones, var.cidr, var.nat, var.interface_endpoints]
}

run "neither_does_what_is_no_cidr_nor_too_few_zones" {
  command = plan
  variables {
    cidr  = "ten"
    zones = ["us-east-1a", "us-east-1b"]
  }
  expect_failures = [var.cidr, var.zones]
}
