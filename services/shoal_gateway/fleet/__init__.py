"""A fleet on one machine: ZooKeeper, hosts that are loopback addresses, and replicas on them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal_gateway.fleet.errors import FleetError, NoFleetError
    from shoal_gateway.fleet.fleet import Fleet
    from shoal_gateway.fleet.state import FleetState, ReplicaState
else:
    from shoal import lazily

    # Who only wants to know what a fleet is called need not be able to start one.
    __getattr__, __dir__ = lazily.names(
        __name__,
        {
            "shoal_gateway.fleet.errors": "FleetError NoFleetError",
            "shoal_gateway.fleet.fleet": "Fleet",
            "shoal_gateway.fleet.state": "FleetState ReplicaState",
        },
    )

__all__ = ["Fleet", "FleetError", "FleetState", "NoFleetError", "ReplicaState"]
