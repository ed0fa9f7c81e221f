variable "fleet" {
  description = "Name of the fleet (tag shoal:fleet)."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "private_subnets" {
  description = "Id of the private subnet of each zone, as the network module has it."
  type        = map(string)
}

variable "groups" {
  description = "Autoscaling groups by name: the services that each of its hosts runs (registry, api, scheduler, appmanager@FLAVOR), how many hosts and at most how many, their type, the size of their disks in GB, jobs at once of each app manager. Jobs can use what their host's role may, so app managers belong in groups of their own."
  type = map(object({
    services      = set(string)
    size          = optional(number, 3)
    max_size      = optional(number)
    instance_type = optional(string, "t4g.small")
    disk_gb       = optional(number, 16)
    slots         = optional(number, 2)
  }))
  default = {
    gateway = { services = ["registry", "api", "scheduler"] }
    workers = { services = ["appmanager@local"], instance_type = "t4g.medium", disk_gb = 40 }
  }

  validation {
    condition     = alltrue([for name, group in var.groups : can(regex("^[a-z][a-z0-9-]{0,19}$", name)) && !startswith(name, "zookeeper")])
    error_message = "A group's name has at most 20 lower-case letters, digits and hyphens; names that begin with zookeeper are the ensemble's."
  }
  validation {
    condition     = alltrue(flatten([for group in var.groups : [for service in group.services : can(regex("^(registry|api|scheduler|appmanager@[a-z][a-z0-9-]*)$", service))]]))
    error_message = "Services are registry, api, scheduler and appmanager@FLAVOR, like appmanager@local."
  }
  validation {
    condition     = length(setsubtract(["registry", "api", "scheduler", "appmanager"], toset(flatten([for group in var.groups : [for service in group.services : split("@", service)[0]]])))) == 0
    error_message = "Each of registry, api, scheduler and appmanager@FLAVOR runs in some group, else no job ever ends."
  }
  validation {
    condition     = length([for group in var.groups : group if contains(group.services, "registry")]) == 1
    error_message = "The registry runs in exactly one group."
  }
  validation {
    condition     = alltrue([for group in var.groups : group.size >= 1 && (group.max_size == null ? true : group.max_size >= group.size)])
    error_message = "A group has at least one host, and max_size is not below size."
  }
  validation {
    condition     = alltrue([for group in var.groups : length([for service in group.services : service if startswith(service, "appmanager@")]) <= 16])
    error_message = "A host has room for 16 flavors."
  }
  validation {
    condition     = alltrue([for group in var.groups : group.slots >= 1 && group.disk_gb >= 12])
    error_message = "slots is at least 1, and disk_gb at least 12."
  }
}

variable "zookeeper" {
  description = "ZooKeeper: what to open (host:port,…/chroot, with tls:// before it where it demands certificates), and the security group whose members reach it."
  type = object({
    connect                  = string
    client_security_group_id = string
  })

  validation {
    condition     = can(regex("^(tls://)?[^,/]+:[0-9]+(,[^,/]+:[0-9]+)*/[a-z0-9/-]+$", var.zookeeper.connect))
    error_message = "ZooKeeper is given as host:port,host:port/chroot, or tls://host:port,host:port/chroot."
  }
}

variable "store" {
  description = "The store module's outputs: how hosts reach the store, the security group whose members do, the bucket, and the key of the fleet's own (or null)."
  type = object({
    store = object({
      kind       = string
      address    = optional(string)
      port       = optional(number)
      database   = optional(string)
      username   = optional(string)
      secret_arn = optional(string)
      volume_id  = optional(string)
      volume_arn = optional(string)
      zone       = optional(string)
    })
    client_security_group_id = string
    bucket                   = string
    bucket_arn               = string
    kms_key_arn              = optional(string)
  })
}

variable "package" {
  description = "What pip installs: a requirement with extras (\"shoal[gateway,postgres,aws]==0.1.0\", or \"shoal[gateway,postgres,aws] @ https://…/shoal-0.1.0-py3-none-any.whl\"); an index other than PyPI; or an S3 prefix with wheels of everything, for hosts without a way out."
  type = object({
    requirement = optional(string, "shoal[gateway,postgres,aws]")
    index_url   = optional(string)
    wheelhouse  = optional(string)
  })
  default = {}

  validation {
    condition     = can(regex("^shoal\\[[a-z, ]*\\]", var.package.requirement)) && alltrue([for extra in ["gateway", "postgres", "aws"] : strcontains(try(regex("^shoal\\[([a-z, ]*)\\]", var.package.requirement)[0], ""), extra)])
    error_message = "The requirement begins with shoal[gateway,postgres,aws]: hosts need these extras."
  }
  validation {
    condition     = var.package.index_url == null ? true : startswith(var.package.index_url, "https://")
    error_message = "An index is reached by https://."
  }
  validation {
    condition     = var.package.wheelhouse == null ? true : can(regex("^s3://[a-z0-9.-]+/[A-Za-z0-9._/-]*[A-Za-z0-9._-]$", var.package.wheelhouse))
    error_message = "A wheelhouse is a prefix like s3://bucket/wheels."
  }
}

variable "units" {
  description = "systemd's units by file name, as in deploy/systemd: one for each service that runs in a group."
  type        = map(string)
}

variable "applications" {
  description = "Files that users' jobs need, by their place in the bucket below applications/: catalogue/NAME.toml, apps/NAME/FILE, requirements-FLAVOR.txt; each the path of a local file. Hosts take them when they boot, so a change replaces hosts."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for place, file in var.applications : can(regex("^(catalogue/[^/]+\\.toml|apps/[^/]+/.+|requirements-[a-z][a-z0-9-]*\\.txt)$", place)) && !strcontains(place, "..")])
    error_message = "Places are catalogue/NAME.toml, apps/NAME/FILE and requirements-FLAVOR.txt."
  }
}

variable "api_cidrs" {
  description = "Addresses outside of the fleet (peered networks, VPN) whose callers reach the api's port. Empty: none."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.api_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "api_cidrs are blocks like 10.20.0.0/16; the whole internet (/0) is not let in."
  }
}

variable "settings" {
  description = "Further settings of all services: each option as a variable, {SHOAL_LOG_LEVEL = \"DEBUG\"} for --log-level DEBUG."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, value in var.settings : can(regex("^SHOAL_[A-Z_]+$", name)) && !strcontains(value, "\n")])
    error_message = "Settings are named SHOAL_…, and have one line."
  }
}

variable "certificates" {
  description = "Secrets of the services' certificates by their ARNs, {registry = \"arn:…\", api = …, scheduler = …, appmanager = …} as terraform/put-certificates.sh prints them, and the key that encrypts them if that is one of your own. Services then speak TLS only and demand certificates. null: plain text."
  type = object({
    registry    = string
    api         = string
    scheduler   = string
    appmanager  = string
    kms_key_arn = optional(string)
  })
  default = null

  validation {
    condition     = var.certificates == null ? true : alltrue([for service in ["registry", "api", "scheduler", "appmanager"] : can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]+$", var.certificates[service]))])
    error_message = "Secrets are named by their ARNs, arn:aws:secretsmanager:<region>:<account>:secret:<name>-<six characters>."
  }
}

variable "ca_bundle" {
  description = "URL (https:// or s3://) of the certificates that RDS's are signed by; null trusts any certificate."
  type        = string
  default     = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"

  validation {
    condition     = var.ca_bundle == null ? true : can(regex("^(https|s3)://[A-Za-z0-9._~/+%-]+$", var.ca_bundle))
    error_message = "The bundle is fetched from https:// or s3://."
  }
}

variable "ami_id" {
  description = "Amazon Linux 2023 image; null takes the newest for each group's processor at each apply."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null ? true : startswith(var.ami_id, "ami-")
    error_message = "An image's id begins with \"ami-\"."
  }
}

variable "drain_seconds" {
  description = "How long a host may take to drain before autoscaling terminates it all the same."
  type        = number
  default     = 300

  validation {
    condition     = var.drain_seconds >= 120 && var.drain_seconds <= 7200
    error_message = "Between 120 (a service's own grace is 90) and 7200 seconds."
  }
}

variable "boot_seconds" {
  description = "How long a host may take to install and serve before autoscaling gives it up and starts another."
  type        = number
  default     = 1800

  validation {
    condition     = var.boot_seconds >= 300 && var.boot_seconds <= 7200
    error_message = "Between 300 and 7200 seconds."
  }
}

variable "network_ready" {
  description = "The network module's output ready: no instance starts before its way to packages is open."
  type        = string
  default     = ""
}
