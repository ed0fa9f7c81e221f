"""What became of attempts, for those who count and trace: told by whoever sees the end of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal_gateway import jobtraces, telemetry
from shoal_gateway.appmanager.ports import Ended, Result
from shoal_gateway.jobtraces import JobSpan


def reported(
    span: JobSpan, who: Mapping[str, Any], result: Result, refused: str | None = None
) -> None:
    """The registry has heard of its end.

    Args:
        span: From its begin to its report.
        who: ``job_id``, ``attempt`` and ``runner_id``.
        result: What was reported.
        refused: Why the registry did not take it, for the job is another's; None: it did.
    """
    if refused is None:
        telemetry.here().count("shoal.job.attempts", result.ended.value)
    said = "" if result.ended is Ended.SUCCEEDED else result.reason or result.ended.value
    _tell(span, who, result.ended.value, said, exit_code=result.exit_code, refused=refused)


def let_go(span: JobSpan, who: Mapping[str, Any], outcome: str, why: str) -> None:
    """Nothing is reported of it: it was never begun, or is somebody else's."""
    _tell(span, who, outcome, why)


def _tell(span: JobSpan, who: Mapping[str, Any], outcome: str, error: str, **facts: object) -> None:
    jobtraces.end(
        "shoal.job.attempt",
        span,
        error=error,
        job=who["job_id"],
        attempt=who["attempt"],
        runner=who["runner_id"],
        outcome=outcome,
        **facts,
    )
