"""Fixtures that all tests share."""

from shoal.testing.fixtures import chroot, zookeeper

__all__ = ["chroot", "zookeeper"]
