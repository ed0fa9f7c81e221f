"""For users' own tests: no ZooKeeper or a real local one, a clock, and bad networks."""

from shoal.testing.clock import FakeClock
from shoal.testing.faultproxy import Fault, FaultProxy
from shoal.testing.fixed import FixedDirectory
from shoal.testing.zookeeper import ZooKeeperEnsemble, ZooKeeperServer

__all__ = [
    "FakeClock",
    "Fault",
    "FaultProxy",
    "FixedDirectory",
    "ZooKeeperEnsemble",
    "ZooKeeperServer",
]
