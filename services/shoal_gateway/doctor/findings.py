"""What was found, and how bad it is."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    # Works, but not for long, not everywhere, or can't be told.
    WARNING = "warning"
    # Something does not work.
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        what: Was looked at: "Java", "ZooKeeper 127.0.0.1:2181".
        verdict: How bad it is.
        found: What was found.
        mend: What to do; empty where there is nothing to.
    """

    what: str
    verdict: Verdict
    found: str
    mend: str = ""


def ok(what: str, found: str) -> Finding:
    """All is well."""
    return Finding(what, Verdict.OK, found)


def warning(what: str, found: str, mend: str) -> Finding:
    """It works, but."""
    return Finding(what, Verdict.WARNING, found, mend)


def problem(what: str, found: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(what, Verdict.PROBLEM, found, mend)


Check = Callable[[], Iterable[Finding]]


def all_of(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """The findings of all checks; one that breaks off is a finding, and keeps no other away.

    Args:
        checks: Each with what it looks at.
    """
    for what, check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - told, and the others go on
            mend = "see what it says; if that is no help, it is a defect: please report it"
            yield problem(what, f"could not be looked at: {type(error).__name__}: {error}", mend)
