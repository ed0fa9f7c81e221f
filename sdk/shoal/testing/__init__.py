"""For users' own tests: a directory without ZooKeeper, a clock, and a real local ZooKeeper."""

from shoal.testing.clock import FakeClock
from shoal.testing.fixed import FixedDirectory
from shoal.testing.zookeeper import ZooKeeperEnsemble, ZooKeeperServer

__all__ = ["FakeClock", "FixedDirectory", "ZooKeeperEnsemble", "ZooKeeperServer"]
