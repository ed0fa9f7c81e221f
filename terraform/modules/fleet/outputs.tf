output "autoscaling_groups" {
  description = "Full name of each group."
  value       = { for name, group in aws_autoscaling_group.this : name => group.name }

  # A fleet without its hook is not ready to be changed.
  depends_on = [aws_autoscaling_lifecycle_hook.drain]
}

output "drain_hook" {
  description = "Name of the lifecycle hook that a draining host completes."
  value       = local.drain_hook
}

output "services_security_group_id" {
  description = "Security group of all services."
  value       = aws_security_group.services.id
}

output "operator_policy_arn" {
  description = "Policy for whoever operates the fleet."
  value       = aws_iam_policy.operator.arn
}

output "roles" {
  description = "Name of each group's role."
  value       = { for name, role in aws_iam_role.this : name => role.name }
}
