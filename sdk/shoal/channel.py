"""The blocking channel: a ``grpc.Channel`` that picks a replica for each call."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

import grpc

from shoal import forks, observing
from shoal.affinity import Key
from shoal.attempts import CallState, cancellation
from shoal.calls import (
    StreamStreamMethod,
    StreamUnaryMethod,
    UnaryStreamMethod,
    UnaryUnaryMethod,
)
from shoal.failures import CallError, describe
from shoal.fitness import Fitness
from shoal.hedging import Hedge
from shoal.hooks import Hooks
from shoal.pool import Filter, Pool, ReplicaNode
from shoal.protocols import DirectoryLike
from shoal.retry import Retry, changeable
from shoal.security import Security
from shoal.tls import Tls
from shoal.transport import Options, SyncTransport
from shoal.views import ChannelView, view
from shoal_balancer import Ejection, Policy, Replica, SlowStart, Subset, VersionRange

# A caller that has just begun to look is given this long for the first answer, seconds; without it
# the first call of every program would fail.
FIRST_ANSWER = 5.0
# A call that is held back while a set comes back after it was down whole is given this long.
RETURN = 10.0

DEFAULT_RETRY = Retry()
DEFAULT_EJECTION = Ejection()
DEFAULT_SLOW_START = SlowStart()


def where(
    *,
    version: str | None = None,
    flavor: str | None = None,
    zone: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Filter:
    """A filter for channels: replicas whose facts equal all that is given.

    Args:
        version: Exactly this one; for ranges the channel has ``version=``.
        flavor: The kind of work that they do.
        zone: Where they stand.
        metadata: These keys with these values, among whatever else they announced.

    >>> from shoal_balancer import Replica
    >>> where(flavor="sql")(Replica("a", "10.0.0.5", 1, flavor="sql"))
    True
    """
    wanted = {"version": version, "flavor": flavor, "zone": zone}
    facts = {name: value for name, value in wanted.items() if value is not None}
    extra = metadata or {}

    def matches(replica: Replica) -> bool:
        return all(getattr(replica, name) == value for name, value in facts.items()) and all(
            replica.metadata.get(name) == value for name, value in extra.items()
        )

    return matches


M = TypeVar("M")


class Channel(grpc.Channel):
    """A channel to all replicas of a service. Usually made by ``directory.channel(service)``.

    Stubs, interceptors (``grpc.intercept_channel``), metadata, call credentials, compression and
    timeouts work as on any grpc channel. A timeout is the deadline of all attempts together.

    A call with ``wait_for_ready=True`` waits within its deadline for a replica that can be reached;
    one without fails with UNAVAILABLE at once when there is none. Attempts themselves are always
    sent fail-fast: on a dead replica's connection a waiting one would use up the whole deadline
    while others are healthy.

    Args:
        directory: Where the replicas come from.
        service: Whose.
        policy: Which replica gets a call; `PeakEwma` when None.
        retry: What is tried again; None never.
        filter: Which replicas may be used, for example ``shoal.where(flavor="sql")``.
        version: Versions that it takes, for example ``">=1.2,<2"``, ``"==1.4.2"``, ``"^1.4"``
            (`VersionRange`); all when None.
        contract: What it calls: a `Contract`, services, methods, or their names. A replica that
            serves something incompatible gets no call; nothing is compared when None.
        tls: Certificate and trusted authorities; the directory's where `Directory.channel` makes
            the channel. Only replicas with a certificate of the service are called then.
        credentials: grpc's, for TLS in another way; None for plaintext without ``tls``.
        options: grpc's channel options, for each replica's connection.
        compression: grpc's default compression.
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
        ShoalForkError: this is a forked child in which grpc would hang.
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
        ejection: Ejection | None = DEFAULT_EJECTION,
        slow_start: SlowStart | None = DEFAULT_SLOW_START,
        subset: Subset | None = None,
        key: Key | None = None,
        hedge: Hedge | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        forks.check(f"a channel to '{service}'")
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
        security = Security.of(service, tls, credentials)
        self._change = threading.Condition()
        self._states: dict[Callable[[grpc.ChannelConnectivity], None], grpc.ChannelConnectivity]
        self._states = {}
        self.pool = Pool(
            directory,
            service,
            SyncTransport(security.credentials, (*options, *security.options), compression),
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
        return f"<shoal.Channel {self.service} {list(self.pool.balancer.snapshot.nodes)}>"

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnaryMethod:
        """A method with one request and one response."""
        return self._observed(
            UnaryUnaryMethod(
                self, method, request_serializer, response_deserializer, bool(_registered_method)
            )
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
            UnaryStreamMethod(
                self, method, request_serializer, response_deserializer, bool(_registered_method)
            )
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
            StreamUnaryMethod(
                self, method, request_serializer, response_deserializer, bool(_registered_method)
            )
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
            StreamStreamMethod(
                self, method, request_serializer, response_deserializer, bool(_registered_method)
            )
        )

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,
    ) -> None:
        """Calls ``callback`` with READY while there is a replica to call, else with IDLE.

        What one connection does is the picks' business; the channel as a whole is as ready as its
        list. Called at once and at every change, on a thread of the directory.
        """
        del try_to_connect  # each replica is connected to at its first call
        self._states[callback] = state = self._state()
        callback(state)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Ends a subscription."""
        self._states.pop(callback, None)

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

    def close(self) -> None:
        """Closes every connection; calls in flight end with CANCELLED. Idempotent."""
        self.pool.close()
        self._changed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> bool | None:
        self.close()
        return None

    def acquire(self, state: CallState) -> ReplicaNode:
        """A replica with a call begun on it; waits for one where the call allows.

        Raises:
            CallError: there is none: UNAVAILABLE, or DEADLINE_EXCEEDED when it was waited for; or
                CANCELLED by the caller meanwhile.
            ShoalForkError: the channel was made before a fork that grpc does not survive.
            ValueError: the channel was closed (as grpcio's own channel raises).
        """
        while (node := self.acquire_now(state)) is None:
            with self._change:
                pool = self.pool
                waits = pool.returning or not pool.balancer.snapshot.routable
                if waits and not pool.closed:
                    # Bounded, for a first set that is empty, or an end of patience, wakes nobody.
                    self._change.wait(state.nap(self.pool.clock()))
        return node

    def acquire_now(self, state: CallState) -> ReplicaNode | None:
        """The same without waiting; None when there is none yet and the call may wait for one."""
        if self._forked:
            self._start_anew()
        pool = self.pool
        if pool.closed:
            raise ValueError(f"Cannot invoke RPC on closed channel: {self!r}")
        if state.cancelled:
            raise cancellation(state)
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
        why = "there was no replica"
        raise CallError(code, describe(pool.nobody(), state.attempts, why), state.attempts, why)

    def after_fork(self) -> None:
        """In a forked child: what belongs to the parent is dropped before anything uses it."""
        self._forked = True
        self._change = threading.Condition()
        # The fast path finds nobody here and comes to `acquire`, which looks at the mark.
        self.pool.pick = lambda *_: None

    def _start_anew(self) -> None:
        forks.check(f"the channel to '{self.service}'")
        self._forked = False
        self.pool.begin()
        self.pool.follow()

    def _observed(self, method: M) -> M:
        """What a stub calls: the method, or what its observer has in its place."""
        if self.observer is None:
            return method
        # With the same methods, though it is of another class.
        observed: M = self.observer.method(method)
        return observed

    def _changed(self) -> None:
        with self._change:
            self._change.notify_all()
        state = self._state()
        for callback, last in list(self._states.items()):
            if last is not state:
                self._states[callback] = state
                callback(state)

    def _state(self) -> grpc.ChannelConnectivity:
        if self.pool.closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        if self.pool.balancer.snapshot.routable:
            return grpc.ChannelConnectivity.READY
        return grpc.ChannelConnectivity.IDLE


def replica_of(call: Any) -> Replica | None:
    """Which replica served a call; None when none did or it is not known yet.

    Args:
        call: What ``with_call`` returned beside the response, a streaming call, a future, an
            asyncio call, or the error that a call raised.
    """
    found = getattr(call, "replica", None)
    if isinstance(found, Replica):
        return found
    marked = getattr(call, "shoal_replica", None)
    return marked if isinstance(marked, Replica) else None
