"""One call's attempts: its deadline, what was tried, and what comes next.

The book-keeping of the slow path, for the sync and the asyncio channel alike; neither waits nor
sends anything itself.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Protocol

import grpc
import tenacity

from shoal import lineage
from shoal.failures import CANCELLED, Attempt, CallError, describe
from shoal.pool import Pool, ReplicaNode
from shoal.refusal import pushback_in, refusal_in
from shoal.replay import LIMIT
from shoal.retry import Failure, Retry, broke, never_connected, refusal_to_retry

# One line for each retry; off the fast path, so that it may be on by default.
retry_logger = logging.getLogger("shoal.retry")

# Longest wait for a replica without looking, seconds.
LOOK_AGAIN = 0.25

# What a call over a connection that is not there ends with.
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

# How calls wait for a replica that can be reached where retries are off.
_PATIENT = Retry()


class Replayable(Protocol):
    """A stream of requests, which may be too long to send again."""

    @property
    def replayable(self) -> bool:
        """Whether all that was sent is still there."""


class Again(Exception):  # noqa: N818 - not an error: the word to tenacity
    """This attempt failed and another may be made."""


class CallState:
    """What is known of one call after its first failure.

    Args:
        pool: The channel's replicas.
        retry: The channel's policy.
        method: Full name, for the log.
        safe: Whether the method may be sent twice.
        deadline: On the pool's clock; infinity without one.
        wait_for_ready: Whether the call waits for a replica that can be reached.
        key: What the call's affinity goes by; None without one.
    """

    def __init__(
        self,
        pool: Pool,
        retry: Retry | None,
        method: str,
        *,
        safe: bool,
        deadline: float,
        wait_for_ready: bool,
        key: bytes | None = None,
    ) -> None:
        self.pool = pool
        self.retry = retry
        self.method = method
        self.safe = safe
        self.deadline = deadline
        self.wait_for_ready = wait_for_ready
        self.key = key
        self.tried: list[ReplicaNode] = []
        self.attempts: tuple[Attempt, ...] = ()
        # A stream of requests, when that is what is sent; it may have grown too long to send again.
        self.requests: Replayable | None = None
        # Set by a caller that gives up between two attempts, or before the first.
        self.cancelled = False
        # Until when the call waits for a first replica, once that is known.
        self.patience: float | None = None
        self._counted = 0
        self._rounds = 0
        # Whether the last attempt failed with its connection.
        self._broken = False
        # Replicas that turned it away in this round.
        self._refusals = 0
        self._last: Failure | None = None
        # Which attempt of another caller's this call is made for; 1 outside of handlers.
        self._inherited = lineage.attempt()
        # When the first of the replicas that refused in this round wants to be asked again.
        self._back: float | None = None
        # When the next round begins, where there is one.
        self._resume: float | None = None

    def timeout(self, now: float) -> float | None:
        """Seconds for the next attempt; None without any bound."""
        rest = self.deadline - now
        own = self.retry.attempt_timeout if self.retry is not None else None
        if own is not None and own < rest:
            return own
        return None if math.isinf(rest) else max(rest, 0.0)

    def nap(self, now: float) -> float:
        """Seconds to wait for a replica before looking again, not beyond the call's patience."""
        if self.patience is None:
            return LOOK_AGAIN
        return min(LOOK_AGAIN, max(self.patience - now, 0.0))

    def metadata(self, metadata: Any) -> Any:
        """The caller's metadata, with the attempt's number from the second on.

        A call that a handler makes for a later attempt of its own caller is no first one either.
        """
        number = max(len(self.attempts) + 1, self._inherited)
        if number == 1:
            return metadata
        return (*(metadata or ()), (lineage.ATTEMPT_KEY, str(number)))

    def failed(
        self,
        node: ReplicaNode,
        error: Any,
        *,
        began: float,
        ended: float,
        bound: float | None,
        begun: bool = True,
        answered: bool = False,
    ) -> str | None:
        """Records a failed attempt, tells the balancer, and decides.

        Returns:
            Why this was the last attempt; None when the call is to be sent again.

        Args:
            node: Where it went.
            error: grpc's error.
            began: When it was sent, on the pool's clock.
            ended: When it failed.
            bound: The timeout that this attempt had; None without one.
            begun: Whether the balancer still waits for this call's end.
            answered: Whether a stream has handed out messages, so that nothing may be repeated.
        """
        self.record(node, error, began=began, ended=ended, bound=bound, begun=begun)
        return self.verdict(node, ended, answered=answered)

    def record(
        self,
        node: ReplicaNode,
        error: Any,
        *,
        began: float,
        ended: float,
        bound: float | None,
        begun: bool = True,
    ) -> None:
        """Records a failed attempt and tells the balancer; arguments as in `failed`."""
        failure = self._failure(node, error, began, ended, bound)
        if begun:
            node.end(ended - began, failure.outcome, ended)
        replica = node.replica
        details = self.pool.explained(error.details() or "")
        self.attempts += (Attempt(replica, failure.code, details, ended - began),)
        if node not in self.tried:
            self.tried.append(node)
        self._last = failure
        self._resume = None
        if not failure.untouched:
            self._counted += 1
        if failure.refused is not None:
            self._refusals += 1
        if failure.refused is not None and failure.pushback is not None:
            back = ended + failure.pushback
            self._back = back if self._back is None else min(self._back, back)

    def verdict(self, node: ReplicaNode, ended: float, *, answered: bool = False) -> str | None:
        """Why the attempt that was recorded last is the last one; None to send the call again."""
        failure = self._last
        if failure is None:
            raise RuntimeError("no attempt was recorded")
        if answered:
            return "messages were handed out already"
        if self.requests is not None and not self.requests.replayable:
            return f"the request stream grew over {LIMIT // 1024} KiB"
        others = self.pool.untried(ended, self.tried) and (
            self.retry is None or self._refusals < self.retry.refusals
        )
        waits = self.wait_for_ready and failure.unsent
        if waits and not others:
            # All over again, more and more slowly: one of them may come up within the deadline.
            self.tried.clear()
            self._rounds += 1
            others = True
        again = failure.untouched and not others and self._back is not None
        if again:
            # Nobody had room for it, which counts as one attempt.
            self._counted += 1
        why = refusal_to_retry(
            self.retry,
            failure,
            safe=self.safe,
            counted=self._counted,
            remaining=self.deadline - ended,
            others=others,
            waits=waits,
            back=None if self._back is None else max(0.0, self._back - ended),
            nested=self._inherited > 1,
        )
        if why is None and again:
            self.tried.clear()
            self._refusals = 0
            self._resume, self._back = self._back, None
        if why is None:
            retry_logger.info(
                "retry: attempt %d of %s after %s at %s (%s): %s: %s",
                len(self.attempts) + 1,
                self.method,
                node.replica.id,
                node.replica.target,
                "refused" if failure.refused else "never sent" if failure.unsent else "failed",
                failure.code.name,
                self.attempts[-1].details,
            )
            if self.pool.retried is not None:
                self.pool.retried(self.method, len(self.attempts) + 1, self.attempts[-1])
        return why

    def delay(self, state: tenacity.RetryCallState | None = None) -> float:
        """Seconds to the next attempt: pushback, backoff, or none at all.

        What no handler has seen goes to another replica at once: waiting would help nobody. So does
        what broke with its connection: a dead replica says nothing of the others' load. A
        refusal's pushback only counts when all have refused, and then it is the shortest of them.

        Args:
            state: Tenacity's; made here for calls that are driven by callbacks.
        """
        if state is None:
            state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = max(self._counted, self._rounds, 1)
        last = self._last
        rest = max(self.deadline - self.pool.clock(), 0.0)
        if last is None:
            return 0.0
        if self._resume is not None:
            return min(max(self._resume - self.pool.clock(), 0.0), rest)
        if (last.untouched or self._broken) and self.tried:
            return 0.0
        if last.pushback is not None:
            return min(last.pushback, rest)
        wait = (self.retry or _PATIENT).wait()
        return min(float(wait(state)), rest)

    def summary(self, why: str, fallback: str = "") -> str:
        """The details of the final error."""
        last = self.attempts[-1].details if self.attempts else fallback
        return describe(last, self.attempts, why)

    def _failure(
        self, node: ReplicaNode, error: Any, began: float, ended: float, bound: float | None
    ) -> Failure:
        code = error.code()
        trailing = error.trailing_metadata()
        connected = node.endpoint.connected
        lost = not connected and code in _LOST
        if lost:
            self.pool.lost(node)
        self._broken = lost or broke(code, error.details())
        if self.pool.reports:
            self.pool.heard(node, trailing)
        return Failure(
            code=code,
            refused=refusal_in(trailing),
            unsent=never_connected(code, error.details(), connected, node.replica.target),
            pushback=pushback_in(trailing),
            own_deadline=(
                code is grpc.StatusCode.DEADLINE_EXCEEDED
                and bound is not None
                # Else a handler gave up on a deadline of its own, which is an answer.
                and ended - began >= 0.9 * bound
                and self.deadline - ended > 0.001
            ),
        )


def cancellation(state: CallState) -> CallError:
    """The error of a blocking call that was cancelled while no attempt was under way."""
    why = "the caller cancelled"
    return CallError(grpc.StatusCode.CANCELLED, CANCELLED, state.attempts, why)
