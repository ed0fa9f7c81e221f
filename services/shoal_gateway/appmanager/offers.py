"""What managers are asked to run, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Input:
    """A file that a job wants in its working directory."""

    name: str
    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A job on offer, as the scheduler leased it."""

    job_id: str
    attempt: int
    fence: int
    application: str
    flavor: str
    command: tuple[str, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    wall_seconds: float
    memory_mib: int
    # ``module:function`` instead of a command, and what it is called with.
    function: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    # What it is offered for, as W3C's traceparent; empty: it is in no trace.
    trace_context: str = ""

    @property
    def kind(self) -> tuple[str, str]:
        """Of a function: which one of which application."""
        return self.application, self.function


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an offer: ``started``, ``full``, ``taken`` or ``unable``."""

    job_id: str
    verdict: str
    reason: str = ""
