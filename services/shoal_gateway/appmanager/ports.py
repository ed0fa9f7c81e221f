"""What the manager needs of the registry, apart from how it is called."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shoal_gateway.objectstore import Stored

# Attempts in one call of the registry.
MANY = 500


class TakenError(Exception):
    """The registry gave the job to somebody else, or it was cancelled."""


class RegistryAwayError(Exception):
    """The registry could not be reached; nothing is known of what it did."""


class Held(enum.Enum):
    """What a renewal says."""

    HELD = "held"
    LOST = "lost"
    CANCEL = "cancel"


class Ended(enum.Enum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERVISOR_LOST = "supervisor lost"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Lease:
    """An attempt as the registry knows it."""

    job_id: str
    runner_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class Beginning:
    """An attempt that is to begin, under the fence of its offer."""

    job_id: str
    fence: int
    attempt: int
    runner_id: str


@dataclass(frozen=True, slots=True)
class Result:
    """What is reported.

    Attributes:
        lease: Of the attempt.
        attempt: Its number.
        ended: How it ended.
        reason: For a person.
        exit_code: The job's, where there is one.
        files: Name and object of each output, with `Ended.SUCCEEDED`.
    """

    lease: Lease
    attempt: int
    ended: Ended
    reason: str = ""
    exit_code: int | None = None
    files: tuple[tuple[str, Stored], ...] = ()


class Registry(Protocol):
    """The registry, for runners. Every call may raise `RegistryAwayError`."""

    def begin(self, job_id: str, fence: int, attempt: int, runner_id: str) -> int:
        """Begins an attempt; its new fence.

        Raises:
            TakenError: another runner has it.
        """

    def begin_many(self, beginnings: Sequence[Beginning]) -> list[int | str]:
        """Begins attempts; for each its new fence, or why another runner has it."""

    def renew(self, leases: Sequence[Lease]) -> list[tuple[Held, int]]:
        """Renews leases; for each what is so, and with CANCEL the fence for the report."""

    def report(self, result: Result) -> str | None:
        """Reports an end; why it was refused, None when it was accepted."""

    def report_many(self, results: Sequence[Result]) -> list[str | None]:
        """Reports ends, as `report` does for each."""
