"""What can go wrong with a fleet, in words for whoever asked."""

from __future__ import annotations


class FleetError(Exception):
    """A fleet can't do what it was asked; the message says why and what to do."""


class NoFleetError(FleetError):
    """There is no fleet where one was looked for."""
