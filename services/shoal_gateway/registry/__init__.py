"""The registry: the store of jobs, attempts, events and manifests, and the only way to it."""
