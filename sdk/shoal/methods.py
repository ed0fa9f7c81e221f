"""What the multi-callables of the blocking channel have in common: state, attempts, their drive."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import tenacity

from shoal import affinity
from shoal.attempts import Again, CallState
from shoal.failures import CallError
from shoal.hedging import Hedging
from shoal.idempotency import declared_safe
from shoal.pool import ReplicaNode
from shoal_balancer import Outcome, Replica

if TYPE_CHECKING:
    from shoal.channel import Channel

T = TypeVar("T")
OK = Outcome.OK
NEUTRAL = Outcome.NEUTRAL

# Sends one attempt: (the replica's multi-callable, seconds or None, metadata) → what it returns.
Send = Callable[[Any, "float | None", Any], T]


class Method:
    """One method of our channel; each replica's own multi-callable hangs at its endpoint.

    Args:
        channel: Ours.
        method: Full name, ``/package.Service/Method``.
        serializer: Request to bytes.
        deserializer: Bytes to response.
        registered: grpc's ``_registered_method``.
    """

    kind: str

    def __init__(
        self,
        channel: Channel,
        method: str,
        serializer: Any,
        deserializer: Any,
        registered: bool,
    ) -> None:
        self.channel = channel
        self.pool = channel.pool
        self.method = method
        self.key = self.pool.key()
        self._serializer = serializer
        self._deserializer = deserializer
        self._registered = registered
        retry = channel.retry
        self.safe = declared_safe(method) or (retry is not None and method in retry.safe)
        self.hedging: Hedging | None = None
        if channel.hedge is not None and channel.hedge_budget is not None and self.safe:
            hedged = channel.hooks.hedged if channel.hooks is not None else None
            self.hedging = Hedging(channel.hedge, channel.hedge_budget, hedged)
        # Looked at on the fast path: whether there is nothing to do but to pick and to call.
        plain = (
            (retry is None or retry.attempt_timeout is None)
            and channel.key is None
            and self.hedging is None
            and not self.pool.reports
        )
        asked = self.pool.fitness.asked
        self._unlearned = asked is not None and asked.unlearned(method)
        self._plain_then = plain
        self._plain = plain and not self._unlearned
        self._deposit: Callable[[], object] = (
            retry.budget.deposit if retry is not None else _nothing
        )

    def __del__(self) -> None:
        # grpc's interceptors make a method object for every call.
        self.pool.forget(self.key)

    def bind(self, channel: grpc.Channel, replica: Replica) -> Any:
        """This method of one replica's channel."""
        make = getattr(channel, self.kind)
        observer = self.channel.observer
        if observer is None:
            return make(self.method, self._serializer, self._deserializer, self._registered)
        sized = observer.sized(self, self._serializer, self._deserializer)
        return observer.attempt(self, replica, make(self.method, *sized, self._registered))

    def inner(self, node: ReplicaNode) -> Any:
        """This method at a node's endpoint."""
        endpoint = node.endpoint
        return endpoint.callables.get(self.key) or endpoint.bind(self)

    def state(
        self,
        timeout: float | None,
        *,
        wait_for_ready: bool | None,
        request: Any = None,
        metadata: Any = None,
    ) -> CallState:
        """The book-keeping of one call; the request and its metadata are for the call's key."""
        if self._unlearned:
            self._learn()
        key_of = self.channel.key
        pool = self.pool
        return CallState(
            pool,
            self.channel.retry,
            self.method,
            safe=self.safe,
            deadline=math.inf if timeout is None else pool.clock() + timeout,
            wait_for_ready=bool(wait_for_ready),
            key=None if key_of is None else affinity.key(key_of, request, metadata),
        )

    def _learn(self) -> None:
        """The first call: from now on replicas must have this method, and as we know it."""
        self.pool.learn(self.method)
        self._unlearned = False
        self._plain = self._plain_then

    def attempt(self, state: CallState, metadata: Any, send: Send[T], *, mark: bool = False) -> T:
        """Sends one attempt of a blocking call and ends it.

        Args:
            state: The call's.
            metadata: The caller's.
            send: Sends it.
            mark: Whether the result is (response, call), and the call is to remember who served it.

        Raises:
            Again: it failed and another may be made.
            CallError: it failed for good.
        """
        node = self.channel.acquire(state)
        clock = self.pool.clock
        began = clock()
        bound = state.timeout(began)
        try:
            result = send(self.inner(node), bound, state.metadata(metadata))
        except grpc.RpcError as error:
            self.fail(state, node, error, began, bound)
        except BaseException:
            # Not the replica's fault: a message that can't be serialized, or Ctrl-C.
            node.end(0.0, NEUTRAL, clock())
            raise
        now = clock()
        node.end(now - began, OK, now)
        if mark:
            call = result[1]  # type: ignore[index]
            call.shoal_replica = node.replica
            if self.pool.reports:
                self.pool.heard(node, call.trailing_metadata())
        return result

    def fail(
        self, state: CallState, node: ReplicaNode, error: Any, began: float, bound: float | None
    ) -> None:
        """Ends a failed attempt.

        Raises:
            Again: another may be made.
            CallError: it was the last.
        """
        now = self.pool.clock()
        why = state.failed(node, error, began=began, ended=now, bound=bound)
        if why is None:
            raise Again from error
        raise self.error(state, error, why) from error

    def error(self, state: CallState, error: Any, why: str) -> CallError:
        """The final error."""
        return CallError(error.code(), state.summary(why), state.attempts, why, error)

    def drive(self, state: CallState, attempt: Callable[[], T], first: Again | None = None) -> T:
        """Makes attempts until one succeeds or is the last, with tenacity's waits in between.

        Args:
            state: The call's.
            attempt: Makes one.
            first: The failure of an attempt that was made before tenacity was needed.
        """
        failed_before = first

        def once() -> T:
            nonlocal failed_before
            if failed_before is not None:
                failure, failed_before = failed_before, None
                raise failure
            return attempt()

        if failed_before is None:
            try:
                return attempt()
            except Again as failure:
                failed_before = failure
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Again), wait=state.delay, sleep=time.sleep
        )(once)


def _nothing() -> None:
    """Retries are off: there is no budget to feed."""
