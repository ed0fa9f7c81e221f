"""What users' own tests need: a directory without ZooKeeper, a clock, and a real local ZooKeeper."""

from shoal.testing.clock import FakeClock
from shoal.testing.fixed import FixedDirectory

__all__ = ["FakeClock", "FixedDirectory"]
