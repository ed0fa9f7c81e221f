"""Rolling restarts under callers that may not try again: `python -m benchmarks.drain`."""
