"""Judges the history of an experiment; believes nobody, and imports nothing of the gateway."""
