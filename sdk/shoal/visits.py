"""What is done around a handler beyond counting it: its report, and whose retry it serves."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

import grpc

from shoal import lineage, reporter
from shoal.reporter import LoadReporter


class Context(Protocol):
    """What grpc's blocking context and the ones of `shoal.aio.reported` have in common."""

    def code(self) -> grpc.StatusCode | None:
        """The status that the handler set."""

    def trailing_metadata(self) -> Any:
        """The trailers that the handler set."""

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Sets trailers."""


class Visit:
    """One call of a handler, as a block.

    Args:
        context: The call's.
        reports: Makes the server's load reports; None where it sends none.
        repeated: Whether it may be a later attempt of the caller's than its first.
    """

    __slots__ = ("_context", "_reports", "_said", "_serving")

    def __init__(self, context: Any, reports: LoadReporter | None, *, repeated: bool) -> None:
        self._context: Context = context
        self._reports = reports
        self._said: dict[str, float] = {}
        self._serving: AbstractContextManager[None] | None = (
            lineage.serving(lineage.attempt_in(context.invocation_metadata())) if repeated else None
        )

    def __enter__(self) -> None:
        if self._serving is not None:
            self._serving.__enter__()
        if self._reports is not None:
            self._said = reporter.listen(self._context)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._serving is not None:
            self._serving.__exit__(None, None, None)
        reports, context = self._reports, self._context
        if reports is None:
            return
        reports.ended(failed=reporter.is_error(context.code(), error))
        add(context, reports.trailers(self._said, itself=1))


def add(context: Context, trailers: tuple[tuple[str, bytes], ...]) -> None:
    """Adds to what the handler set, at its end."""
    context.set_trailing_metadata((*(context.trailing_metadata() or ()), *trailers))
