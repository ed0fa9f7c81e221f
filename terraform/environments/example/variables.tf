variable "fleet" {
  description = "Name of the fleet: in all names, DNS names and tags."
  type        = string
  default     = "example"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,23}$", var.fleet)) && !endswith(var.fleet, "-")
    error_message = "The fleet's name has 2 to 24 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "A region looks like us-east-1."
  }
}

variable "zones" {
  description = "Three availability zones; null takes the region's first three."
  type        = list(string)
  default     = null
}

variable "nat" {
  description = "\"single\", \"per_zone\" or \"none\"; see the network module."
  type        = string
  default     = "single"
}

variable "interface_endpoints" {
  description = "AWS services with an interface endpoint in each zone; with NAT, [] does as well. See the network module."
  type        = set(string)
  default     = ["ssm", "ssmmessages", "ec2messages"]
}

variable "zookeeper_nodes" {
  description = "Nodes of the ensemble: 3 or 5."
  type        = number
  default     = 3

  validation {
    condition     = contains([3, 5], var.zookeeper_nodes)
    error_message = "An ensemble has 3 or 5 nodes."
  }
}

variable "zookeeper_archive" {
  description = "Where ZooKeeper is fetched from, and its SHA-256; null takes Apache's archive."
  type = object({
    url    = string
    sha256 = string
  })
  default = null
}

variable "store" {
  description = "\"postgres\", or \"sqlite\": then the registry runs on one host."
  type        = string
  default     = "postgres"

  validation {
    condition     = contains(["postgres", "sqlite"], var.store)
    error_message = "store is \"postgres\" or \"sqlite\"."
  }
}

variable "postgres" {
  description = "The RDS instance; see the store module."
  type = object({
    instance_class = optional(string)
    version        = optional(string)
    storage_gb     = optional(number)
    max_storage_gb = optional(number)
    multi_az       = optional(bool)
    backup_days    = optional(number)
  })
  default = {}
}

variable "gateway" {
  description = "Hosts of registry, api and scheduler: how many, and of which type. With SQLite there is one."
  type = object({
    size          = optional(number, 3)
    instance_type = optional(string, "t4g.small")
  })
  default = {}
}

variable "workers" {
  description = "Hosts of app managers, which run jobs: how many, at most how many, their type, disk in GB, and jobs at once."
  type = object({
    size          = optional(number, 3)
    max_size      = optional(number)
    instance_type = optional(string, "t4g.medium")
    disk_gb       = optional(number, 40)
    slots         = optional(number, 2)
  })
  default = {}
}

variable "package" {
  description = "What pip installs, and from where; see the fleet module."
  type = object({
    requirement = optional(string)
    index_url   = optional(string)
    wheelhouse  = optional(string)
  })
  default = {}
}

variable "ca_bundle" {
  description = "URL of RDS's certificates; see the fleet module."
  type        = string
  default     = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
}

variable "applications" {
  description = "Files of applications by their place in the bucket; null takes the example \"nap\". See the fleet module."
  type        = map(string)
  default     = null
}

variable "api_cidrs" {
  description = "Addresses outside of the VPC whose callers reach the api."
  type        = list(string)
  default     = []
}

variable "settings" {
  description = "Further settings of all services, by variable: {SHOAL_LOG_LEVEL = \"DEBUG\"}."
  type        = map(string)
  default     = {}
}

variable "certificates" {
  description = "Secrets Manager's ARNs of the services' certificates, as terraform/put-certificates.sh prints them; everything then speaks TLS and demands certificates. null: plain text inside the security groups."
  type = object({
    registry    = string
    api         = string
    scheduler   = string
    appmanager  = string
    zookeeper   = string
    kms_key_arn = optional(string)
  })
  default = null
}

variable "ami_id" {
  description = "Amazon Linux 2023 image for all hosts (then all instance types have one kind of processor); null takes the newest."
  type        = string
  default     = null
}

variable "kms_key_arn" {
  description = "Key for disks, database and bucket; null uses AWS's own."
  type        = string
  default     = null
}

variable "protected" {
  description = "Whether data outlives destroy: see the store module."
  type        = bool
  default     = true
}
