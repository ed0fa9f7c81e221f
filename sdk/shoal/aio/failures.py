"""The error that a failed asyncio call ends with."""

from __future__ import annotations

import grpc
import grpc.aio

from shoal.failures import CANCELLED, Attempt, CallFailure


class AioCallError(grpc.aio.AioRpcError, CallFailure):
    """A failed call: an ``AioRpcError`` that knows its attempts."""

    @classmethod
    def after(
        cls,
        error: grpc.aio.AioRpcError,
        details: str,
        attempts: tuple[Attempt, ...],
        why: str,
    ) -> AioCallError:
        """The error after a last attempt that failed with ``error``."""
        made = cls(
            error.code(),
            error.initial_metadata(),
            error.trailing_metadata(),
            details=details,
            debug_error_string=error.debug_error_string(),
        )
        made.attempts = attempts
        made.why = why
        made.__cause__ = error
        return made

    @classmethod
    def nobody(
        cls,
        code: grpc.StatusCode,
        details: str,
        attempts: tuple[Attempt, ...],
        why: str = "there was no replica",
    ) -> AioCallError:
        """The error of a call that there was no replica for, or that was cancelled before."""
        made = cls(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)
        made.attempts = attempts
        made.why = why
        return made

    @classmethod
    def cancelled(cls, attempts: tuple[Attempt, ...]) -> AioCallError:
        """The error of a call that was cancelled while no attempt was under way."""
        return cls.nobody(grpc.StatusCode.CANCELLED, CANCELLED, attempts, "the caller cancelled")
