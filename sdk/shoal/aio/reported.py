"""Contexts of asyncio handlers that add the load report to an abort.

``abort`` of grpc.aio sends the status at once. So what is added to the trailers can't wait for the
handler's end as it does in a blocking server, where an abort is only noted until then.
"""

from __future__ import annotations

from typing import Any

import grpc

from shoal.reporter import LoadReporter


class _Reported:
    """All of grpc's context, but for what concerns the trailers and the status.

    Args:
        inner: grpc's.
        reports: Makes the server's reports.
    """

    def __init__(self, inner: Any, reports: LoadReporter) -> None:
        self._inner = inner
        self._reports = reports
        self._trailers: tuple[Any, ...] = ()
        self._code: grpc.StatusCode | None = None
        self._aborted = False
        # What `shoal.report` says for this call; see `shoal.reporter`.
        self.shoal_said: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_trailing_metadata(self, metadata: Any) -> None:
        """As grpc's."""
        self._trailers = tuple(metadata)
        # After an abort the status is on its way.
        if not self._aborted:
            self._inner.set_trailing_metadata(self._trailers)

    def trailing_metadata(self) -> tuple[Any, ...]:
        """As grpc's."""
        return self._trailers

    def set_code(self, code: grpc.StatusCode) -> None:
        """As grpc's."""
        self._code = code
        self._inner.set_code(code)

    def code(self) -> grpc.StatusCode | None:
        """As grpc's."""
        return self._code

    def _last(self, code: grpc.StatusCode, trailers: Any) -> tuple[Any, ...]:
        """Trailers of an abort."""
        self._code = code
        self._aborted = True
        own = tuple(trailers) or self._trailers
        return (*own, *self._reports.trailers(self.shoal_said, itself=1))


class ReportedContext(_Reported):
    """For coroutines."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> None:
        """As grpc's, with the report in the trailers."""
        await self._inner.abort(code, details, self._last(code, trailing_metadata))

    async def abort_with_status(self, status: grpc.Status) -> None:
        """As grpc's, with the report in the trailers."""
        await self.abort(status.code, status.details, status.trailing_metadata)


class BlockingReportedContext(_Reported):
    """For handlers on the executor's threads."""

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        """As grpc's, with the report in the trailers."""
        self._inner.abort(code, details, self._last(code, trailing_metadata))
