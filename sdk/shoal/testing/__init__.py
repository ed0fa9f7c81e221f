"""For users' own tests: no ZooKeeper or a real local one, a clock, and bad networks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.testing.clock import FakeClock
    from shoal.testing.faultproxy import Fault, FaultProxy
    from shoal.testing.fixed import FixedDirectory
    from shoal.testing.zookeeper import ZooKeeperEnsemble, ZooKeeperServer
else:
    from shoal import lazily

    __getattr__, __dir__ = lazily.names(
        __name__,
        {
            "shoal.testing.clock": "FakeClock",
            "shoal.testing.faultproxy": "Fault FaultProxy",
            "shoal.testing.fixed": "FixedDirectory",
            "shoal.testing.zookeeper": "ZooKeeperEnsemble ZooKeeperServer",
        },
    )

__all__ = [
    "FakeClock",
    "Fault",
    "FaultProxy",
    "FixedDirectory",
    "ZooKeeperEnsemble",
    "ZooKeeperServer",
]
