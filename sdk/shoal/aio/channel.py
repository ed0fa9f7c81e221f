"""The asyncio channel: a ``grpc.aio.Channel`` that picks a replica for each call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from shoal import forks, observing
from shoal.affinity import Key
from shoal.aio.calls import StreamUnaryMethod, UnaryUnaryMethod
from shoal.aio.failures import AioCallError
from shoal.aio.streams import StreamStreamMethod, UnaryStreamMethod
from shoal.aio.transport import AioTransport
from shoal.attempts import CallState
from shoal.channel import (
    DEFAULT_EJECTION,
    DEFAULT_RETRY,
    DEFAULT_SLOW_START,
    FIRST_ANSWER,
    RETURN,
)
from shoal.failures import describe
from shoal.fitness import Fitness
from shoal.hedging import Hedge
from shoal.hooks import Hooks
from shoal.pool import Filter, Pool, ReplicaNode
from shoal.protocols import DirectoryLike
from shoal.retry import Retry, changeable
from shoal.security import Security
from shoal.tls import Tls
from shoal.transport import Options
from shoal.views import ChannelView, view
from shoal_balancer import Ejection, Policy, SlowStart, Subset, VersionRange

M = TypeVar("M")


class Channel(grpc.aio.Channel):
    """A channel to all replicas of a service, for asyncio; `shoal.Channel` says the rest.

    Made on a running event loop and used on that loop only.

    Args:
        directory: Where the replicas come from.
        service: Whose.
        policy: Which replica gets a call; `PeakEwma` when None.
        retry: What is tried again; None never.
        filter: Which replicas may be used.
        version: Versions that it takes, for example ``">=1.2,<2"``, ``"==1.4.2"``, ``"^1.4"``
            (`VersionRange`); all when None.
        contract: What it calls: a `Contract`, services, methods, or their names. A replica that
            serves something incompatible gets no call; nothing is compared when None.
        tls: Certificate and trusted authorities; the directory's where `Directory.channel` makes
            the channel. Only replicas with a certificate of the service are called then.
        credentials: grpc's, for TLS in another way; None for plaintext without ``tls``.
        options: grpc's channel options, for each replica's connection.
        compression: grpc's default compression.
        interceptors: grpc.aio's; they run for each attempt, for asyncio channels can't be wrapped.
        ejection: When a failing replica is left alone for a while; None never.
        slow_start: How a newcomer among others, or a set that was down whole, begins; None: at
            once.
        subset: Which part of a large set this channel uses; None: all of it.
        key: What the affinity of a call goes by, for keyed policies such as `Rendezvous`: a
            header's name, or a function of request and metadata (the request of a stream is None).
        hedge: When a slow call of a safe method with one request and one response is sent a second
            time; None never.
        hooks: Told of attempts, retries, copies and ejections, for metrics; None costs nothing.

    Raises:
        RuntimeError: no event loop is running.
        TlsError: the certificate or the authorities can't be used.
        ValueError: the range of versions or the contract can't be read, or there are both ``tls``
            and ``credentials``.
    """

    def __init__(
        self,
        directory: DirectoryLike,
        service: str,
        *,
        policy: Policy | None = None,
        retry: Retry | None = DEFAULT_RETRY,
        filter: Filter | None = None,  # noqa: A002 - the word that callers look for
        version: str | VersionRange | None = None,
        contract: Any = None,
        tls: Tls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Options = (),
        compression: grpc.Compression | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
        ejection: Ejection | None = DEFAULT_EJECTION,
        slow_start: SlowStart | None = DEFAULT_SLOW_START,
        subset: Subset | None = None,
        key: Key | None = None,
        hedge: Hedge | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        forks.check(f"an asyncio channel to '{service}'", aio=True)
        self.service = service
        self.retry = retry
        self.key = key
        self.observer = observer = observing.current()
        if observer is not None:
            hooks = observer.hooks(service, hooks)
        self.hooks = hooks
        self.hedge = hedge
        self.hedge_budget = hedge.budget() if hedge is not None else None
        self._forked = False
        self._loop = asyncio.get_running_loop()
        self._change = asyncio.Event()
        security = Security.of(service, tls, credentials)
        self._transport = AioTransport(
            self._loop,
            security.credentials,
            (*options, *security.options),
            compression,
            interceptors,
        )
        self.pool = Pool(
            directory,
            service,
            self._transport,
            policy=policy,
            ejection=ejection,
            keep=filter,
            fitness=Fitness(version, contract),
            changed=self._changed,
            slow_start=slow_start,
            subset=subset,
            observer=hooks,
            retried=hooks.retried if hooks is not None else None,
            speaks=security.speaks,
            files=security.files,
        )
        self.pool.follow()
        forks.on_fork(self)
        if observer is not None:
            observer.channel(self)

    def __repr__(self) -> str:
        return f"<shoal.aio.Channel {self.service} {list(self.pool.balancer.snapshot.nodes)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes every connection. Idempotent.

        Args:
            grace: Seconds that calls in flight may take to end; None cancels them at once.
        """
        if grace is not None:
            await self._idle(grace)
        self.pool.close()
        self._change.set()
        await self._transport.finish()

    def retune(self, retry: Retry | None) -> None:
        """Other retries for calls that begin from now on; `dataclasses.replace` makes them.

        Raises:
            ValueError: they differ in what can't change while a channel is used: the safe methods,
                the budget, whether there are retries, or an attempt_timeout, at all.
        """
        self.retry = changeable(self.retry, retry)

    def snapshot(self) -> ChannelView:
        """What this channel knows of each replica now, and how calls are doing."""
        return view(self.pool, self.retry)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """READY while there is a replica to call, else IDLE."""
        del try_to_connect  # each replica is connected to at its first call
        if self.pool.closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        if self.pool.balancer.snapshot.routable:
            return grpc.ChannelConnectivity.READY
        return grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the state is another one."""
        while self.get_state() is last_observed_state:
            self._change.clear()
            if self.get_state() is last_observed_state:
                await self._change.wait()

    async def channel_ready(self) -> None:
        """Waits until there is a replica to call."""
        while (state := self.get_state()) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnaryMethod:
        """A method with one request and one response."""
        return self._observed(
            UnaryUnaryMethod(self, method, request_serializer, response_deserializer)
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> UnaryStreamMethod:
        """A method with one request and a stream of responses."""
        return self._observed(
            UnaryStreamMethod(self, method, request_serializer, response_deserializer)
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> StreamUnaryMethod:
        """A method with a stream of requests and one response."""
        return self._observed(
            StreamUnaryMethod(self, method, request_serializer, response_deserializer)
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> StreamStreamMethod:
        """A method with a stream either way."""
        return self._observed(
            StreamStreamMethod(self, method, request_serializer, response_deserializer)
        )

    async def acquire(self, state: CallState) -> ReplicaNode:
        """A replica with a call begun on it; waits for one where the call allows.

        Raises:
            AioCallError: there is none: UNAVAILABLE, or DEADLINE_EXCEEDED when it was waited for.
        """
        while (node := self.acquire_now(state)) is None:
            self._change.clear()
            pool = self.pool
            if pool.closed or (pool.balancer.snapshot.routable and not pool.returning):
                continue
            try:
                # Bounded, for a first set that is empty, or an end of patience, wakes nobody.
                await asyncio.wait_for(self._change.wait(), state.nap(self.pool.clock()))
            except TimeoutError:
                continue
        return node

    def acquire_now(self, state: CallState) -> ReplicaNode | None:
        """The same without waiting; None when there is none yet and the call may wait for one."""
        if self._forked:
            raise forks.error(f"the asyncio channel to '{self.service}'", aio=True)
        pool = self.pool
        if pool.closed:
            raise asyncio.InvalidStateError(f"Channel is closed: {self!r}")
        if state.cancelled:
            raise AioCallError.cancelled(state.attempts)
        now = pool.clock()
        # Before the pick: a set that comes in between is no reason to give up without a look at it.
        known = pool.known
        node = pool.take(now, state.tried, state.key)
        if node is not None:
            return node
        if state.wait_for_ready:
            state.patience = state.deadline
        elif pool.returning:
            # Held back with others, and let through bit by bit.
            state.patience = state.patience or min(state.deadline, now + RETURN)
        elif known:
            state.patience = now
        elif state.patience is None:
            state.patience = min(state.deadline, now + FIRST_ANSWER)
        if now < state.patience:
            return None
        late = state.wait_for_ready and not math.isinf(state.deadline)
        code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.UNAVAILABLE
        details = describe(pool.nobody(), state.attempts, "there was no replica")
        raise AioCallError.nobody(code, details, state.attempts)

    def after_fork(self) -> None:
        """In a forked child: grpc.aio does not survive a fork."""
        self._forked = True
        self.pool.pick = lambda *_: None

    def _observed(self, method: M) -> M:
        """What a stub calls: the method, or what its observer has in its place."""
        if self.observer is None:
            return method
        # With the same methods, though it is of another class.
        observed: M = self.observer.method(method)
        return observed

    def _changed(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._change.set)
        except RuntimeError:
            # The loop is closed; nobody waits on it any more.
            self.pool.closed = True

    async def _idle(self, grace: float) -> None:
        until = self.pool.clock() + grace
        nodes = self.pool.balancer.snapshot.everyone().values()
        while any(node.in_flight for node in nodes) and self.pool.clock() < until:
            self._change.clear()
            for node in nodes:
                node.when_idle(self._change.set)
            try:
                await asyncio.wait_for(self._change.wait(), until - self.pool.clock())
            except TimeoutError:
                return
