variable "fleet" {
  description = "Name of the fleet (tag shoal:fleet)."
  type        = string
}

variable "size" {
  description = "Nodes of the ensemble: 3 bear the loss of one, 5 of two."
  type        = number
  default     = 3

  validation {
    condition     = contains([3, 5], var.size)
    error_message = "An ensemble has 3 or 5 nodes: an even number bears no more losses than one less, and 1 bears none."
  }
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "zones" {
  description = "Three zones, over which nodes are spread in turn."
  type        = list(string)

  validation {
    condition     = length(var.zones) == 3
    error_message = "Three zones: with two, the loss of one takes the majority along."
  }
}

variable "private_subnets" {
  description = "Id of the private subnet of each zone, as the network module has it."
  type        = map(string)
}

variable "instance_type" {
  description = "Type of the nodes. ZooKeeper wants memory for its data and a disk that answers soon."
  type        = string
  default     = "t4g.small"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.instance_type))
    error_message = "An instance type looks like t4g.small."
  }
}

variable "ami_id" {
  description = "Amazon Linux 2023 image; null takes the newest for the instance type's processor, which nodes get when they are replaced."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null ? true : startswith(var.ami_id, "ami-")
    error_message = "An image's id begins with \"ami-\"."
  }
}

variable "heap_mb" {
  description = "Memory of the JVM in MB; leave a third of the host's to the system."
  type        = number
  default     = 768

  validation {
    condition     = var.heap_mb >= 256
    error_message = "ZooKeeper wants at least 256 MB."
  }
}

variable "volume_gb" {
  description = "Size of each node's data volume."
  type        = number
  default     = 10

  validation {
    condition     = var.volume_gb >= 4
    error_message = "At least 4 GB: transaction logs are laid out 64 MB at a time, and five snapshots are kept."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts volumes; null uses the one that AWS keeps for EBS."
  type        = string
  default     = null
}

variable "archive" {
  description = "Where ZooKeeper's binary release is fetched from (https:// or s3://), and its SHA-256."
  type = object({
    url    = string
    sha256 = string
  })
  default = {
    url    = "https://archive.apache.org/dist/zookeeper/zookeeper-3.8.4/apache-zookeeper-3.8.4-bin.tar.gz"
    sha256 = "284cb4675adb64794c63d95bf202d265cebddc0cda86ac86fb0ede8049de9187"
  }
  nullable = false

  validation {
    condition     = can(regex("^(https|s3)://[A-Za-z0-9._~/+%-]+$", var.archive.url))
    error_message = "The archive is fetched from https:// or s3://."
  }
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.archive.sha256))
    error_message = "A SHA-256 has 64 hexadecimal digits."
  }
}

variable "chroot" {
  description = "Path under which the fleet keeps everything."
  type        = string
  default     = "/shoal"

  validation {
    condition     = can(regex("^(/[a-z0-9-]+)+$", var.chroot))
    error_message = "The chroot is a path like /shoal."
  }
}

variable "certificates" {
  description = "Secret of the nodes' certificate by its ARN, {zookeeper = \"arn:…\"} as terraform/put-certificates.sh prints it, and the key that encrypts it if that is one of your own. ZooKeeper then speaks TLS only and demands certificates. null: plain text."
  type = object({
    zookeeper   = string
    kms_key_arn = optional(string)
  })
  default = null

  validation {
    condition     = var.certificates == null ? true : can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]+$", var.certificates.zookeeper))
    error_message = "A secret is named by its ARN, arn:aws:secretsmanager:<region>:<account>:secret:<name>-<six characters>."
  }
}

variable "protected" {
  description = "Whether destroy leaves a last snapshot of each data volume."
  type        = bool
  default     = true
}

variable "network_ready" {
  description = "The network module's output ready: no instance starts before its way to packages is open."
  type        = string
  default     = ""
}
