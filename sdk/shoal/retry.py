"""When a failed call is sent again: pure decisions, for the sync and the asyncio channel alike."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

import grpc
import tenacity

from shoal_balancer import Outcome, RetryBudget

Code = grpc.StatusCode

# What a replica's end of a call says about it: an application's own "no" is a good answer.
_FAILED = frozenset(
    {
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.INTERNAL,
        Code.UNKNOWN,
        Code.RESOURCE_EXHAUSTED,
        Code.DATA_LOSS,
        Code.UNIMPLEMENTED,
    }
)

# grpc's core says this when it never got a connection, so that nothing was sent.
_NEVER_CONNECTED = "failed to connect to all addresses"

# And these when a connection ended under a call.
_BROKE = ("Socket closed", "Stream removed", "Connection reset")

_NO_TIME = "the deadline leaves no time"

# One for the process, as all of its calls share the fate that a retry storm would bring.
_process_budget = RetryBudget(clock=time.monotonic, lock=threading.Lock())


@dataclass(frozen=True, slots=True)
class Retry:
    """What is tried again, how often and when.

    Only what is safe is sent twice: methods whose proto says ``idempotency_level``, those named in
    ``safe``, and calls that provably were not handled (the server refused them before its handler
    ran, or no connection was ever made). Each attempt goes to another replica while there is one.

    Source: gRFC A6 (attempts, jittered backoff, pushback); Finagle's retry budget.

    Attributes:
        attempts: Attempts in all, the first included. Refused and unsent ones don't count: they
            cost no work, and end when every replica was tried. Where those that refused said when
            to come back, they are asked again then, and such a round counts as one attempt.
        refusals: Replicas that may turn a call away in one round. Where five are full most are, and
            to ask all of a thousand would be a storm.
        backoff: Mean-doubling start of the full-jitter wait, seconds: the first wait is drawn from
            0 to ``backoff``, the second from 0 to twice that.
        max_backoff: Upper end of any wait, seconds.
        attempt_timeout: Seconds for one attempt, within the call's deadline; None: the whole rest.
        codes: Status codes that a safe method is retried on.
        safe: Full method names (``/package.Service/Method``) that the caller declares safe to
            repeat though their proto says nothing.
        budget: Shared by all channels of the process unless given.
    """

    attempts: int = 3
    refusals: int = 5
    backoff: float = 0.05
    max_backoff: float = 1.0
    attempt_timeout: float | None = None
    codes: frozenset[Code] = frozenset({Code.UNAVAILABLE})
    safe: Collection[str] = ()
    budget: RetryBudget = field(default=_process_budget, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts!r}")
        if self.refusals < 1:
            raise ValueError(f"refusals must be at least 1, not {self.refusals!r}")
        if not 0.0 <= self.backoff <= self.max_backoff:
            raise ValueError(
                f"backoff must lie between 0 and max_backoff: {self.backoff!r}, "
                f"{self.max_backoff!r}"
            )
        if self.attempt_timeout is not None and not self.attempt_timeout > 0.0:
            raise ValueError(f"attempt_timeout must be positive, not {self.attempt_timeout!r}")
        if isinstance(self.safe, str):
            raise TypeError("safe is a collection of method names, not one name")

    def wait(self) -> tenacity.wait.wait_base:
        """The waits between attempts: exponential with full jitter."""
        return tenacity.wait_random_exponential(multiplier=self.backoff, max=self.max_backoff)


def changeable(before: Retry | None, after: Retry | None) -> Retry | None:
    """What a channel may go over to while it is used: ``after``.

    Methods were bound by what is safe, by the budget that they pay into, and by whether an attempt
    has a timeout of its own; these can't change.

    Raises:
        ValueError: one of them would.
    """
    if before is None or after is None:
        if before is not after:
            raise ValueError("retries can't be switched on or off while a channel is used")
        return None
    if set(before.safe) != set(after.safe) or before.budget is not after.budget:
        raise ValueError("a channel's safe methods and its budget can't change while it is used")
    if (before.attempt_timeout is None) is not (after.attempt_timeout is None):
        raise ValueError(
            "an attempt_timeout can be changed while a channel is used, but not come or go"
        )
    return after


@dataclass(frozen=True, slots=True)
class Failure:
    """How one attempt ended, as far as the decision needs it.

    Attributes:
        code: The status.
        refused: Why the server turned it away before the handler ran; None when it did not.
        unsent: Whether it provably never left this process.
        pushback: Seconds that the server asks to wait; infinity forbids; None when unsaid.
        own_deadline: Whether the attempt's own, shorter timeout ended it.
    """

    code: Code
    refused: str | None = None
    unsent: bool = False
    pushback: float | None = None
    own_deadline: bool = False

    @property
    def untouched(self) -> bool:
        """Whether no handler has seen it, so that any method may be sent again."""
        return self.refused is not None or self.unsent

    @property
    def outcome(self) -> Outcome:
        """What the balancer learns from it."""
        if self.code is Code.CANCELLED or self.refused is not None:
            return Outcome.NEUTRAL
        return Outcome.FAILED if self.code in _FAILED else Outcome.OK


def never_connected(code: Code, details: str | None, connected: bool, target: str) -> bool:
    """Whether a failure proves that nothing was sent.

    The words alone prove nothing, since a handler may pass on an error of its own callers. With a
    connection that is not there they do; so do they where it was made a moment later, if they name
    the replica itself: no handler of it answers that it can't be reached.
    """
    return (
        code is Code.UNAVAILABLE
        and details is not None
        and details.startswith(_NEVER_CONNECTED)
        and (not connected or f":{target}: " in details)
    )


def broke(code: Code, details: str | None) -> bool:
    """Whether the core's words say that the connection ended under the call.

    A call can hear of that before its channel's state says so. A handler may pass such words on
    from its own callees, so they decide no more than how long the next attempt waits.
    """
    return (
        code is Code.UNAVAILABLE
        and details is not None
        and any(words in details for words in _BROKE)
    )


def refusal_to_retry(
    retry: Retry | None,
    failure: Failure,
    *,
    safe: bool,
    counted: int,
    remaining: float,
    others: bool,
    waits: bool = False,
    back: float | None = None,
    nested: bool = False,
) -> str | None:
    """Why a failed attempt is the last one; None when the call should be sent again.

    The budget is asked last and charged when the answer is None.

    Args:
        retry: The channel's policy; None never retries.
        failure: How the attempt ended.
        safe: Whether the method may be sent twice.
        counted: Attempts so far that count (this one included, unless untouched).
        remaining: Seconds to the call's deadline, infinity without one.
        others: Whether a replica is left that was not tried, and may be.
        waits: Whether the caller waits for a replica that can be reached, and this one can't be:
            going on looking is no retry.
        back: Where every replica was tried: seconds until the first that refused wants to be asked
            again; None when none said so. A pushback is a replica's own word. So it does not hold
            back a call that another replica may take.
        nested: Whether this is the work of a handler that serves a later attempt of its own caller.
            It is repeated there, not here as well.
    """
    if retry is None and not waits:
        return "retries are off"
    if failure.code is Code.CANCELLED:
        return "the caller cancelled"
    if failure.pushback is not None and math.isinf(failure.pushback):
        return "the server forbids a retry"
    if failure.untouched and others:
        return None if remaining > 0.0 else _NO_TIME
    if failure.untouched and back is None:
        return "no replica is left to try"
    if remaining <= ((back if failure.untouched else failure.pushback) or 0.0):
        return _NO_TIME
    if retry is None:
        return "retries are off"
    if not failure.untouched:
        if not safe:
            return "the method is not declared idempotent"
        if failure.code not in retry.codes and not failure.own_deadline:
            return f"{failure.code.name} is not retried"
    if nested:
        return "our own caller is retrying already"
    return _charged(retry, counted)


def _charged(retry: Retry, counted: int) -> str | None:
    if counted >= retry.attempts:
        return "attempts are used up"
    if not retry.budget.withdraw():
        return "the retry budget is empty"
    return None
