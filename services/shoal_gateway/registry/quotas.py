"""How much a user may have: pure decisions on what the store says is used.

A minute and a day begin with the first use after the one before has ended. A submit is refused when
its user's bytes are used up; what a running job publishes is noted and never refused, for its work
is done.
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60.0
DAY = 86400.0

JOBS_IN_FLIGHT = "jobs_in_flight"
SUBMITS_PER_MINUTE = "submits_per_minute"
BYTES_PER_DAY = "bytes_per_day"
LARGEST = 2**62


@dataclass(frozen=True, slots=True)
class Quotas:
    """Bounds on one user; what is said of each stands in ``account.proto``."""

    jobs_in_flight: int = 1000
    submits_per_minute: int = 600
    bytes_per_day: int = 100 << 30


@dataclass(frozen=True, slots=True)
class Used:
    """What a user has used, by the store's clock.

    Attributes:
        jobs_in_flight: Jobs that have not ended.
        minute_began: Seconds since 1970.
        minute_submits: New jobs in that minute.
        day_began: Seconds since 1970.
        day_bytes: Bytes stored in that day.
    """

    jobs_in_flight: int
    minute_began: float
    minute_submits: int
    day_began: float
    day_bytes: int

    def at(self, now: float) -> Used:
        """The same, with a new minute and a new day where the old ones have ended.

        A clock that was set back begins anew as well: nobody waits for last year to come again.
        """
        minute = 0.0 <= now - self.minute_began < MINUTE
        day = 0.0 <= now - self.day_began < DAY
        return Used(
            self.jobs_in_flight,
            self.minute_began if minute else now,
            self.minute_submits if minute else 0,
            self.day_began if day else now,
            self.day_bytes if day else 0,
        )


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A quota that is used up.

    Attributes:
        quota: Its name.
        said: For the person: which, how much it is, and when to try again.
    """

    quota: str
    said: str


def next_job(user: str, quotas: Quotas, used: Used, now: float) -> Used | Exceeded:
    """What is used after one more job of a user; or why there may be none.

    Args:
        user: Who.
        quotas: Their bounds.
        used: By them, as of ``now``.
        now: Seconds since 1970.
    """
    if used.jobs_in_flight >= quotas.jobs_in_flight:
        return Exceeded(
            JOBS_IN_FLIGHT,
            f"quota {JOBS_IN_FLIGHT}: {user} has {used.jobs_in_flight} jobs that have not ended,"
            f" and {quotas.jobs_in_flight} are allowed; try again when one has ended",
        )
    if used.minute_submits >= quotas.submits_per_minute:
        return Exceeded(
            SUBMITS_PER_MINUTE,
            f"quota {SUBMITS_PER_MINUTE}: {user} has submitted {used.minute_submits} jobs in this"
            f" minute, and {quotas.submits_per_minute} are allowed; try again in"
            f" {_span(used.minute_began + MINUTE - now)}",
        )
    if used.day_bytes >= quotas.bytes_per_day:
        return out_of_bytes(user, quotas, used, now)
    return Used(
        used.jobs_in_flight + 1,
        used.minute_began,
        used.minute_submits + 1,
        used.day_began,
        used.day_bytes,
    )


def more_bytes(user: str, quotas: Quotas, used: Used, now: float, wanted: int) -> Used | Exceeded:
    """What is used after so many bytes more; or why they may not be stored."""
    if used.day_bytes + wanted > quotas.bytes_per_day:
        return out_of_bytes(user, quotas, used, now, wanted)
    return Used(
        used.jobs_in_flight,
        used.minute_began,
        used.minute_submits,
        used.day_began,
        used.day_bytes + wanted,
    )


def out_of_bytes(user: str, quotas: Quotas, used: Used, now: float, wanted: int = 0) -> Exceeded:
    """The words for a day's bytes that are used up, or would be by ``wanted`` more."""
    more = f", this would be {size(wanted)} more" if wanted else ""
    when = (
        "it is larger than a whole day's; ask an administrator for a larger quota"
        if wanted > quotas.bytes_per_day
        else f"try again in {_span(used.day_began + DAY - now)}"
    )
    return Exceeded(
        BYTES_PER_DAY,
        f"quota {BYTES_PER_DAY}: {user} has stored {size(used.day_bytes)} in this day{more}, and"
        f" {size(quotas.bytes_per_day)} are allowed; {when}",
    )


def size(count: int) -> str:
    """Bytes for a person."""
    amount, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024.0:
            break
        amount, unit = amount / 1024.0, larger
    return f"{amount:.4g} {unit}"


def _span(seconds: float) -> str:
    # Rounded up: who comes back then is not a moment early.
    whole = max(1, int(seconds) + 1)
    if whole < 120:
        return f"{whole} s"
    minutes = -(-whole // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
