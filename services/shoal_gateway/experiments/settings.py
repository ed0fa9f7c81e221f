"""What every experiment is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """An experiment's size and place.

    Attributes:
        jobs: How many are submitted.
        seed: Of jobs, arrivals, faults and victims.
        out: Where history, report and pictures go.
        store: "sqlite" or "postgres".
        seconds: How long the arrivals last; the run lasts longer where the machine is slower.
        small: Fewer and shorter faults, for a look at whether everything works.
    """

    jobs: int
    seed: int
    out: Path
    store: str = "sqlite"
    seconds: float = 300.0
    small: bool = False

    def document(self) -> dict[str, Any]:
        """For history and report."""
        return {
            "jobs": self.jobs,
            "seed": self.seed,
            "store": self.store,
            "arrival_seconds": self.seconds,
            "small": self.small,
        }
