"""A thousand replicas and hundreds of callers on one real ZooKeeper: what each event costs it."""
