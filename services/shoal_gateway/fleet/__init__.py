"""A fleet on one machine: ZooKeeper, hosts that are loopback addresses, and replicas on them."""

from shoal_gateway.fleet.errors import FleetError, NoFleetError
from shoal_gateway.fleet.fleet import Fleet
from shoal_gateway.fleet.state import FleetState, ReplicaState

__all__ = ["Fleet", "FleetError", "FleetState", "NoFleetError", "ReplicaState"]
