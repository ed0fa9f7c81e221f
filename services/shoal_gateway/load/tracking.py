"""Jobs that were submitted and what became of them, whichever is heard of first. Pure.

A job may have ended before its submit is answered, and the answer may never come.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job of ours ended.

    Attributes:
        number: Of its arrival.
        job_id: Its id.
        state: Its state's name.
        seq: Of the event that told of it.
        scheduled: When it was to arrive, monotonic seconds.
        at: When its end was heard of, monotonic seconds.
        recorded: When its end was written down, by the store's clock, in seconds since 1970.
    """

    number: int
    job_id: str
    state: str
    seq: int
    scheduled: float
    at: float
    recorded: float

    @property
    def latency(self) -> float:
        """Seconds since it was to arrive: what it waited to be sent counts too."""
        return self.at - self.scheduled

    def failure(self, patience: float) -> str:
        """Why it does not count as a success; empty when it does."""
        if self.state != "SUCCEEDED":
            return f"ended {self.state}"
        if self.latency > patience:
            return f"later than {patience:g} s"
        return ""


class Tracker:
    """Matches acknowledgements and ends."""

    def __init__(self) -> None:
        self._scheduled: dict[int, float] = {}
        self._acknowledged: dict[str, int] = {}
        # Ends of jobs that nobody has acknowledged to us: others' jobs, or ours any moment now.
        self._early: dict[str, tuple[str, int, float, float]] = {}

    @property
    def open(self) -> int:
        """Jobs that were submitted and neither rejected nor ended."""
        return len(self._scheduled)

    def submitted(self, number: int, scheduled: float) -> None:
        """A job is being sent."""
        self._scheduled[number] = scheduled

    def rejected(self, number: int) -> None:
        """It was not taken."""
        del self._scheduled[number]

    def acknowledged(self, number: int, job_id: str) -> Ended | None:
        """It was taken; its end, when that was heard of before."""
        self._acknowledged[job_id] = number
        early = self._early.pop(job_id, None)
        return None if early is None else self._close(job_id, *early)

    def ended(self, job_id: str, state: str, seq: int, at: float, recorded: float) -> Ended | None:
        """A job has ended; None when it is not one of ours, as far as is known."""
        if job_id not in self._acknowledged:
            self._early.setdefault(job_id, (state, seq, at, recorded))
            return None
        return self._close(job_id, state, seq, at, recorded)

    def _close(self, job_id: str, state: str, seq: int, at: float, recorded: float) -> Ended | None:
        number = self._acknowledged[job_id]
        scheduled = self._scheduled.pop(number, None)
        if scheduled is None:
            return None  # told twice
        return Ended(number, job_id, state, seq, scheduled, at, recorded)
