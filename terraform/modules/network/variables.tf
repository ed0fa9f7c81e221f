variable "fleet" {
  description = "Name of the fleet. Everything is named and tagged by it (shoal:fleet)."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,23}$", var.fleet)) && !endswith(var.fleet, "-")
    error_message = "The fleet's name has 2 to 24 lower-case letters, digits and hyphens, and begins with a letter: it becomes part of a bucket's name and of DNS names."
  }
}

variable "cidr" {
  description = "Addresses of the VPC. Each zone gets a sixteenth for its public and one for its private subnet."
  type        = string
  default     = "10.60.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 22, false)
    error_message = "The VPC's addresses are a CIDR block between /16 and /22, like 10.60.0.0/16."
  }
}

variable "zones" {
  description = "Three availability zones, like [\"us-east-1a\", \"us-east-1b\", \"us-east-1c\"]; null takes the region's first three."
  type        = list(string)
  default     = null

  validation {
    condition     = var.zones == null ? true : length(var.zones) == 3 && length(distinct(var.zones)) == 3
    error_message = "Name three different zones: with two, the loss of one takes ZooKeeper's majority along."
  }
}

variable "nat" {
  description = "How instances reach the internet to install packages: \"single\" (one NAT gateway, whose zone's loss stops installations but no service), \"per_zone\" (three), or \"none\" (everything comes from S3; see package in the fleet module)."
  type        = string
  default     = "single"

  validation {
    condition     = contains(["none", "single", "per_zone"], var.nat)
    error_message = "nat is \"none\", \"single\" or \"per_zone\"."
  }
}

variable "interface_endpoints" {
  description = "AWS services that are reached from inside the VPC by an interface endpoint in each zone. Without NAT, those that instances need to boot and drain are added."
  type        = set(string)
  default     = ["ssm", "ssmmessages", "ec2messages"]

  validation {
    condition     = alltrue([for name in var.interface_endpoints : can(regex("^[a-z0-9.-]+$", name))])
    error_message = "Endpoints are named as in com.amazonaws.<region>.<name>: \"ssm\", \"secretsmanager\"."
  }
}
