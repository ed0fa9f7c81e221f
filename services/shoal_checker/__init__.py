"""Judges the history of an experiment. Believes nobody there, and imports nothing of the gateway."""
