output "connect" {
  description = "What callers and services open: host:port of all nodes, and the chroot; with certificates tls:// before it."
  value       = "${local.tls ? "tls://" : ""}${join(",", [for node in local.nodes : "${node.name}:${local.client_port}"])}${var.chroot}"

  # Whoever knows it may connect.
  depends_on = [aws_route53_record.node, aws_vpc_security_group_ingress_rule.client]
}

output "nodes" {
  description = "Name, zone, address and autoscaling group of each node."
  value = {
    for number, node in local.nodes : number => {
      name    = node.name
      zone    = node.zone
      address = aws_network_interface.node[number].private_ip
      group   = aws_autoscaling_group.node[number].name
    }
  }
}

output "autoscaling_groups" {
  description = "Autoscaling group of each node, in order."
  value       = [for number in sort(keys(local.nodes)) : aws_autoscaling_group.node[number].name]
}

output "client_security_group_id" {
  description = "Security group whose members reach ZooKeeper."
  value       = aws_security_group.client.id
}

output "dns_zone_id" {
  description = "The private zone that nodes are named in."
  value       = aws_route53_zone.this.zone_id
}
