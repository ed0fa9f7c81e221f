# `shoal fleet` and `shoal experiment` read these by `terraform output -json`.

output "fleet" {
  description = "Name of the fleet: the value of the tag shoal:fleet."
  value       = var.fleet
}

output "region" {
  description = "AWS region."
  value       = var.region
}

output "zookeeper" {
  description = "What callers open: host:port of all nodes, and the chroot; with certificates tls:// before it."
  value       = module.zookeeper.connect
}

output "bucket" {
  description = "Bucket of inputs, outputs and logs."
  value       = module.store.bucket
}

output "objects" {
  description = "The object store's URL, as --objects takes it."
  value       = "s3://${module.store.bucket}/objects"
}

output "autoscaling_groups" {
  description = "Autoscaling groups of services, by name."
  value       = module.fleet.autoscaling_groups
}

output "zookeeper_groups" {
  description = "Autoscaling group of each ZooKeeper node, in order: one instance each."
  value       = module.zookeeper.autoscaling_groups
}

output "zookeeper_nodes" {
  description = "Name, zone, fixed address and group of each ZooKeeper node."
  value       = module.zookeeper.nodes
}

output "drain_hook" {
  description = "Lifecycle hook that a draining host completes."
  value       = module.fleet.drain_hook
}

output "client_security_group_id" {
  description = "Callers on instances of their own in this VPC: give them this group, for ZooKeeper, and the next."
  value       = module.zookeeper.client_security_group_id
}

output "services_security_group_id" {
  description = "Group whose members reach all services."
  value       = module.fleet.services_security_group_id
}

output "operator_policy_arn" {
  description = "IAM policy for whoever operates this fleet."
  value       = module.fleet.operator_policy_arn
}
