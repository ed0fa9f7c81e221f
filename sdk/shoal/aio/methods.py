"""What the multi-callables of the asyncio channel have in common: state, their drive, writing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio
import tenacity

from shoal import affinity
from shoal.aio.failures import AioCallError
from shoal.aio.replay import Feed
from shoal.attempts import Again, CallState
from shoal.hedging import Hedging
from shoal.idempotency import declared_safe
from shoal.pool import ReplicaNode
from shoal_balancer import Replica

if TYPE_CHECKING:
    from shoal.aio.channel import Channel

T = TypeVar("T")

# Sends one attempt: (the replica's multi-callable, seconds or None, metadata) → grpc's call.
Send = Callable[[Any, "float | None", Any], Any]


class Method:
    """One method of our channel; each replica's own multi-callable hangs at its endpoint."""

    kind: str
    streams_requests = False

    def __init__(self, channel: Channel, method: str, serializer: Any, deserializer: Any) -> None:
        self.channel = channel
        self.pool = channel.pool
        self.method = method
        self.key = self.pool.key()
        self.serializer = serializer
        self._deserializer = deserializer
        retry = channel.retry
        self.safe = declared_safe(method) or (retry is not None and method in retry.safe)
        self.hedging: Hedging | None = None
        if channel.hedge is not None and channel.hedge_budget is not None and self.safe:
            hedged = channel.hooks.hedged if channel.hooks is not None else None
            self.hedging = Hedging(channel.hedge, channel.hedge_budget, hedged)
        # Whether there is nothing to do but to pick and to call.
        plain = (
            (retry is None or retry.attempt_timeout is None)
            and channel.key is None
            and self.hedging is None
        )
        asked = self.pool.fitness.asked
        self._unlearned = asked is not None and asked.unlearned(method)
        self._plain_then = plain
        self.plain = plain and not self._unlearned
        self.deposit: Callable[[], object] = retry.budget.deposit if retry is not None else _nothing

    def __del__(self) -> None:
        self.pool.forget(self.key)

    def bind(self, channel: grpc.aio.Channel, replica: Replica) -> Any:
        """This method of one replica's channel; request streams come serialized already."""
        make = getattr(channel, self.kind)
        observer = self.channel.observer
        if self.streams_requests:
            inner = make(self.method, None, self._deserializer)
        elif observer is None:
            return make(self.method, self.serializer, self._deserializer)
        else:
            inner = make(self.method, *observer.sized(self, self.serializer, self._deserializer))
        return inner if observer is None else observer.attempt(self, replica, inner)

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
            # The first call: from now on replicas must have this method, and as we know it.
            self.pool.learn(self.method)
            self._unlearned = False
            self.plain = self._plain_then
        key_of = self.channel.key
        return CallState(
            self.pool,
            self.channel.retry,
            self.method,
            safe=self.safe,
            deadline=math.inf if timeout is None else self.pool.clock() + timeout,
            wait_for_ready=bool(wait_for_ready),
            key=None if key_of is None else affinity.key(key_of, request, metadata),
        )

    def error(self, state: CallState, error: grpc.aio.AioRpcError, why: str) -> AioCallError:
        """The final error."""
        return AioCallError.after(error, state.summary(why), state.attempts, why)

    async def drive(
        self,
        state: CallState,
        attempt: Callable[[], Awaitable[T]],
        first: Again | None = None,
    ) -> T:
        """Makes attempts until one succeeds or is the last, with tenacity's waits in between."""
        failed_before = first

        async def once() -> T:
            nonlocal failed_before
            if failed_before is not None:
                failure, failed_before = failed_before, None
                raise failure
            return await attempt()

        if failed_before is None:
            try:
                return await attempt()
            except Again as failure:
                failed_before = failure
        return await tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Again), wait=state.delay, sleep=asyncio.sleep
        )(once)


async def write(call: Any, feed: Feed | None, request: Any) -> None:
    """Writes a request of a call that has not ended."""
    if call.done():
        raise asyncio.InvalidStateError("the call has ended")
    if feed is None:
        raise asyncio.InvalidStateError("writing was ended, or an iterator gives the requests")
    if not await put(call, feed, request):
        raise asyncio.InvalidStateError("the call has ended")


async def put(call: Any, feed: Feed, request: Any) -> bool:
    """Hands a request over to the call that sends it; False when the call ended instead."""
    handed = asyncio.ensure_future(feed.write(request))
    end = asyncio.ensure_future(call.code())
    try:
        await asyncio.wait({handed, end}, return_when=asyncio.FIRST_COMPLETED)
        return handed.done()
    finally:
        end.cancel()
        handed.cancel()


def settled(coroutine: Any) -> Any:
    """The value of one of grpc's accessors on a call that has ended, without awaiting."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("the call has not ended")


def _nothing() -> None:
    """Retries are off: there is no budget to feed."""
