"""A queue of jobs in ZooKeeper beside the registry's, by how many jobs wait."""
