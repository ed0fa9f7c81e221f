"""The error that a failed call ends with: grpc's, and what was tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc

from shoal.bases import Future
from shoal_balancer import Replica


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a call.

    Attributes:
        replica: Where it went; None when there was nobody to send it to.
        code: How it ended.
        details: What the replica, or grpc on its behalf, said.
        seconds: How long it took.
    """

    replica: Replica | None
    code: grpc.StatusCode
    details: str
    seconds: float

    def __str__(self) -> str:
        where = f"{self.replica.id} at {self.replica.target}" if self.replica else "no replica"
        return f"{where}: {self.code.name} after {self.seconds:.3f} s: {self.details}"


# grpc's own words for a call that its caller cancelled.
CANCELLED = "Locally cancelled by application!"


class CallFailure:
    """What the sync and the asyncio error share.

    Attributes:
        attempts: Every attempt, in order.
        why: Why the last one was the last, for example "attempts are used up".
    """

    attempts: tuple[Attempt, ...]
    why: str

    @property
    def replica(self) -> Replica | None:
        """Where the last attempt went."""
        return self.attempts[-1].replica if self.attempts else None


def describe(last: str, attempts: tuple[Attempt, ...], why: str) -> str:
    """The details of a failed call: the last attempt's own, and all attempts if there were more."""
    if len(attempts) < 2:
        return last
    listed = "; ".join(f"{number}. {attempt}" for number, attempt in enumerate(attempts, 1))
    return f"{last} ({len(attempts)} attempts, then {why}: {listed})"


class CallError(grpc.RpcError, grpc.Call, Future, CallFailure):
    """A failed call: an RpcError, a Call and a finished Future, as grpcio's own error is."""

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str,
        attempts: tuple[Attempt, ...],
        why: str,
        inner: Any = None,
    ) -> None:
        super().__init__(f"{code.name}: {details}")
        self.attempts = attempts
        self.why = why
        self._code = code
        self._details = details
        self._inner = inner

    def __str__(self) -> str:
        return f"{self._code.name}: {self._details}"

    def __repr__(self) -> str:
        return f"<CallError {self}>"

    def code(self) -> grpc.StatusCode:
        """The status code of the last attempt."""
        return self._code

    def details(self) -> str:
        """The last attempt's details, and every attempt if there were several."""
        return self._details

    def initial_metadata(self) -> Any:
        """The last attempt's initial metadata."""
        return self._inner.initial_metadata() if self._inner is not None else ()

    def trailing_metadata(self) -> Any:
        """The last attempt's trailing metadata."""
        return self._inner.trailing_metadata() if self._inner is not None else ()

    def debug_error_string(self) -> str:
        """What grpc's core says of the last attempt."""
        describe_inner = getattr(self._inner, "debug_error_string", None)
        return str(describe_inner()) if describe_inner is not None else str(self)

    def is_active(self) -> bool:
        """It has ended."""
        return False

    def time_remaining(self) -> float:
        """It has ended."""
        return 0.0

    def cancel(self) -> bool:
        """It has ended."""
        return False

    def add_callback(self, callback: Callable[[], Any]) -> bool:  # noqa: ARG002 - grpc's shape
        """It has ended, so that nothing is called."""
        return False

    def cancelled(self) -> bool:
        """Whether the caller cancelled it."""
        return self._code is grpc.StatusCode.CANCELLED

    def running(self) -> bool:
        """It has ended."""
        return False

    def done(self) -> bool:
        """It has ended."""
        return True

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - grpc's shape
        """Raises itself."""
        raise self

    def exception(self, timeout: float | None = None) -> CallError:  # noqa: ARG002 - grpc's shape
        """Itself."""
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:  # noqa: ARG002
        """Where it was raised."""
        return self.__traceback__

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Calls ``fn`` at once."""
        fn(self)
