terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 6.0"
    }
  }

  # State has no password in it, but whoever may write it rules the fleet. Keep it in a bucket:
  #
  # backend "s3" {
  #   bucket       = "my-terraform-state"
  #   key          = "shoal/example.tfstate"
  #   region       = "us-east-1"
  #   encrypt      = true
  #   use_lockfile = true
  # }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { "shoal:fleet" = var.fleet }
  }
}
