output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "cidr" {
  description = "Addresses of the VPC."
  value       = aws_vpc.this.cidr_block
}

output "zones" {
  description = "The three zones, in the order in which ZooKeeper's nodes are spread over them."
  value       = local.zones
}

output "private_subnets" {
  description = "Id of the private subnet of each zone."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.id }
}

output "public_subnets" {
  description = "Id of the public subnet of each zone."
  value       = { for zone, subnet in aws_subnet.public : zone => subnet.id }
}

output "nat_gateways" {
  description = "Id of the NAT gateway of each zone that has one."
  value       = { for zone, gateway in aws_nat_gateway.this : zone => gateway.id }
}

output "interface_endpoints" {
  description = "AWS services that have an interface endpoint."
  value       = sort(local.endpoints)
}

# Instances must not boot before the way to their packages is open.
output "ready" {
  description = "Known when packages can be reached from the private subnets; depend on it before starting instances."
  value = sha1(jsonencode([
    [for route in aws_route.nat : route.id],
    [for association in aws_route_table_association.private : association.id],
    [for endpoint in aws_vpc_endpoint.interface : endpoint.id],
    aws_vpc_endpoint.s3.id,
  ]))
}
