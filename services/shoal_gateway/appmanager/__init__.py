"""Runs jobs of one flavor on one host, each under a supervisor of its own."""
