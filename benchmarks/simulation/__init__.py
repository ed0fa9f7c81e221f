"""The shipped policies among up to a thousand replicas and callers, on a virtual clock."""
