"""A job's trace: from its submit through every service that does something about it.

The spans of calls end with their calls. What is done about a job lasts longer, survives the death
of who did it, and is told by whoever sees its end. So such a span is only a ``traceparent`` and a
time until then: both can lie on a disk. Where traces are off nothing is made or kept; what came
with the job is handed on all the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from shoal_gateway import traceparents


@dataclass(frozen=True, slots=True)
class JobSpan:
    """Something that is done about a job.

    Attributes:
        own: Its ``traceparent``; empty: it is in no trace.
        parent: That of what it was done for.
        began: Seconds since 1970.
    """

    own: str = ""
    parent: str = ""
    began: float = 0.0

    @property
    def is_own(self) -> bool:
        """Whether somebody is to be told of its end: it is more than what came with the job."""
        return bool(self.own) and self.own != self.parent

    def document(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


NONE = JobSpan()


class Spans(Protocol):
    """Who makes spans; see `shoal_gateway.telemetry`."""

    def child(self, parent: str) -> str:
        """The ``traceparent`` of a new span."""

    def ended(
        self, name: str, span: JobSpan, ended: float, facts: Mapping[str, Any], error: str
    ) -> None:
        """Records it."""

    def current(self) -> str:
        """That of the span at work; empty when there is none."""

    @contextmanager
    def within(self, traceparent: str) -> Iterator[None]:
        """While calls made here belong to that span."""


spans: Spans | None = None

# (job, attempt, traceparent) that this thread or task is at work on, for the log.
_at_work: ContextVar[tuple[str, int, str]] = ContextVar("shoal_job", default=("", 0, ""))


def submitted(metadata: Any) -> str:
    """The ``traceparent`` that a job is written down with: of the call that submits it."""
    return (spans.current() if spans is not None else "") or traceparents.sent_with(metadata)


def begin(parent: str) -> JobSpan:
    """Something begins for the sake of ``parent``."""
    if not parent:
        return NONE
    own = spans.child(parent) if spans is not None else parent
    return JobSpan(own, parent, time.time())


def end(name: str, span: JobSpan, *, error: str = "", **facts: Any) -> None:
    """It has ended.

    Args:
        name: ``shoal.job.…``.
        span: What `begin` gave, to whichever process.
        error: Why it failed; empty when it did not.
        facts: What is said of it: ``flavor`` becomes ``shoal.flavor``.
    """
    if spans is not None and span.is_own:
        said = {
            f"shoal.{key.replace('_', '.')}": value
            for key, value in facts.items()
            if value is not None
        }
        spans.ended(name, span, time.time(), said, error)


@contextmanager
def within(span: JobSpan, job_id: str = "", attempt: int = 0) -> Iterator[None]:
    """While what is called and logged here belongs to a span and its job."""
    token = _at_work.set((job_id, attempt, span.own))
    try:
        if spans is None or not span.own:
            yield
        else:
            with spans.within(span.own):
                yield
    finally:
        _at_work.reset(token)


def known() -> dict[str, Any]:
    """What a line of the log says of the work that it is about."""
    job_id, attempt, traceparent = _at_work.get()
    found: dict[str, Any] = {}
    if job_id:
        found["job"] = job_id
    if attempt:
        found["attempt"] = attempt
    if spans is not None:
        traceparent = spans.current() or traceparent
    if traceparent:
        found["trace_id"], found["span_id"] = traceparents.ids(traceparent)
    return found
