output "bucket" {
  description = "Name of the bucket for inputs, outputs and logs."
  value       = aws_s3_bucket.this.id
}

output "bucket_arn" {
  description = "ARN of the bucket, for policies."
  value       = local.bucket_arn
}

output "client_security_group_id" {
  description = "Security group whose members reach the database."
  value       = aws_security_group.client.id
}

output "kms_key_arn" {
  description = "Key of the fleet's own, or null."
  value       = var.kms_key_arn
}

# One value that the fleet module takes: what a host needs to open the store.
output "store" {
  description = "How hosts reach the store: kind, and for PostgreSQL address, port, database, user and the secret that holds the password, for SQLite the volume and its zone."
  value = {
    kind       = var.kind
    address    = local.postgres ? aws_db_instance.this[0].address : null
    port       = local.postgres ? aws_db_instance.this[0].port : null
    database   = local.postgres ? aws_db_instance.this[0].db_name : null
    username   = local.postgres ? aws_db_instance.this[0].username : null
    secret_arn = local.postgres ? aws_db_instance.this[0].master_user_secret[0].secret_arn : null
    volume_id  = local.postgres ? null : aws_ebs_volume.sqlite[0].id
    volume_arn = local.postgres ? null : aws_ebs_volume.sqlite[0].arn
    zone       = local.postgres ? null : local.zone
  }
}
