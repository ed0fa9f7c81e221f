"""Coordination over a directory's ZooKeeper session: what services agree on beside who is there."""
