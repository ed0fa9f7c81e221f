variable "fleet" {
  description = "Name of the fleet (tag shoal:fleet)."
  type        = string
}

variable "kind" {
  description = "Where jobs are kept: \"postgres\" (RDS; the services run on any number of hosts) or \"sqlite\" (a volume; the services run on one host)."
  type        = string
  default     = "postgres"

  validation {
    condition     = contains(["postgres", "sqlite"], var.kind)
    error_message = "kind is \"postgres\" or \"sqlite\"."
  }
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "private_subnets" {
  description = "Id of the private subnet of each zone, as the network module has it."
  type        = map(string)

  validation {
    condition     = length(var.private_subnets) >= 2
    error_message = "RDS wants subnets in at least two zones."
  }
}

variable "postgres" {
  description = "The RDS instance: class, storage in GB (and up to how much it grows), days of backups, engine version, whether a standby waits in another zone."
  type = object({
    instance_class = optional(string, "db.t4g.small")
    version        = optional(string, "16")
    storage_gb     = optional(number, 20)
    max_storage_gb = optional(number, 100)
    multi_az       = optional(bool, true)
    backup_days    = optional(number, 7)
  })
  default = {}

  validation {
    condition     = startswith(var.postgres.instance_class, "db.")
    error_message = "RDS classes begin with \"db.\", like db.t4g.small."
  }
  validation {
    condition     = var.postgres.storage_gb >= 20 && var.postgres.max_storage_gb >= var.postgres.storage_gb
    error_message = "Storage begins at 20 GB, and max_storage_gb is not below storage_gb."
  }
  validation {
    condition     = var.postgres.backup_days >= 1 && var.postgres.backup_days <= 35
    error_message = "Backups are kept for 1 to 35 days: jobs that were acknowledged must not be lost."
  }
}

variable "sqlite" {
  description = "The volume of SQLite: its zone (null takes the first) and size in GB."
  type = object({
    zone    = optional(string)
    size_gb = optional(number, 20)
  })
  default = {}

  validation {
    condition     = var.sqlite.size_gb >= 4 && var.sqlite.size_gb <= 16384
    error_message = "The volume has 4 to 16384 GB."
  }
}

variable "bucket" {
  description = "Name of the bucket for inputs, outputs and logs; null makes one of fleet, account and region."
  type        = string
  default     = null

  validation {
    condition     = var.bucket == null ? true : can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits and hyphens; dots would break TLS."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the bucket, the database and the volume; null uses the keys that AWS keeps for S3, RDS and EBS."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "The key is named by its ARN, arn:aws:kms:<region>:<account>:key/<id>."
  }
}

variable "keep_old_versions_days" {
  description = "Days after which overwritten and deleted objects are gone for good."
  type        = number
  default     = 30

  validation {
    condition     = var.keep_old_versions_days >= 1
    error_message = "At least one day."
  }
}

variable "expire_objects_days" {
  description = "Days after which inputs, outputs and logs are deleted; null keeps them for ever."
  type        = number
  default     = null

  validation {
    condition     = var.expire_objects_days == null ? true : var.expire_objects_days >= 1
    error_message = "At least one day, or null."
  }
}

variable "protected" {
  description = "Whether destroy is refused for the database and leaves a last snapshot of database and volume, and for a bucket that holds objects. Set it to false, apply, and destroy to get rid of everything."
  type        = bool
  default     = true
}
