locals {
  repository = "${path.module}/../../.."
  units      = "${local.repository}/deploy/systemd"

  applications = var.applications != null ? var.applications : {
    "catalogue/nap-1.0.toml" = "${local.repository}/examples/nap/nap-1.0.toml"
    "apps/nap/nap.py"        = "${local.repository}/examples/nap/nap.py"
  }
}

module "network" {
  source = "../../modules/network"

  fleet = var.fleet
  zones = var.zones
  nat   = var.nat

  interface_endpoints = var.interface_endpoints
}

module "zookeeper" {
  source = "../../modules/zookeeper"

  fleet           = var.fleet
  size            = var.zookeeper_nodes
  vpc_id          = module.network.vpc_id
  zones           = module.network.zones
  private_subnets = module.network.private_subnets
  archive         = var.zookeeper_archive
  certificates    = var.certificates
  ami_id          = var.ami_id
  kms_key_arn     = var.kms_key_arn
  protected       = var.protected
  network_ready   = module.network.ready
}

module "store" {
  source = "../../modules/store"

  fleet           = var.fleet
  kind            = var.store
  vpc_id          = module.network.vpc_id
  private_subnets = module.network.private_subnets
  postgres        = var.postgres
  kms_key_arn     = var.kms_key_arn
  protected       = var.protected
}

module "fleet" {
  source = "../../modules/fleet"

  fleet           = var.fleet
  vpc_id          = module.network.vpc_id
  private_subnets = module.network.private_subnets
  network_ready   = module.network.ready

  zookeeper = {
    connect                  = module.zookeeper.connect
    client_security_group_id = module.zookeeper.client_security_group_id
  }
  store = {
    store                    = module.store.store
    client_security_group_id = module.store.client_security_group_id
    bucket                   = module.store.bucket
    bucket_arn               = module.store.bucket_arn
    kms_key_arn              = module.store.kms_key_arn
  }

  # Jobs can use what the role of their host may. So the hosts that run them are not those that know
  # the store's password.
  groups = {
    gateway = merge(var.gateway, {
      services = ["registry", "api", "scheduler"]
      size     = var.store == "sqlite" ? 1 : var.gateway.size
    })
    workers = merge(var.workers, { services = ["appmanager@local"] })
  }

  package      = var.package
  units        = { for name in fileset(local.units, "*.service") : name => file("${local.units}/${name}") }
  applications = local.applications
  api_cidrs    = var.api_cidrs
  settings     = var.settings
  certificates = var.certificates
  ca_bundle    = var.ca_bundle
  ami_id       = var.ami_id
}
