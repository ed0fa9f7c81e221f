"""The multi-callables of the blocking channel.

`UnaryUnaryMethod.__call__` is the fast path: pick, begin, call, end. Everything that a failed, a
waiting or a streaming call needs beside that is in `methods`, `streams` and `futures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from shoal import bases
from shoal.attempts import Again
from shoal.futures import CallFuture
from shoal.lineage import passed_on
from shoal.methods import NEUTRAL, OK, Method
from shoal.pool import ReplicaNode
from shoal.replay import ReplayedRequests
from shoal.streams import ResponseStream
from shoal_balancer import Replica


class UnaryUnaryMethod(Method, bases.UnaryUnary):
    """One request, one response."""

    kind = "unary_unary"

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls and returns the response.

        Raises:
            CallError: the call failed; ``attempts`` says where and how.
        """
        pool = self.pool
        clock = pool.clock
        began = clock()
        if not self._plain:
            response, _ = self.with_call(
                request, timeout, metadata, credentials, wait_for_ready, compression
            )
            return response
        node = pool.pick(began)
        if node is not None:
            node.begin()
            if not node.retired:
                endpoint = node.endpoint
                try:
                    inner = endpoint.callables.get(self.key) or endpoint.bind(self)
                    sent = passed_on(metadata)
                    response = inner(request, timeout, sent, credentials, None, compression)
                except grpc.RpcError as error:
                    return self._again(
                        node, error, began, request, timeout, metadata, credentials,
                        wait_for_ready, compression,
                    )  # fmt: skip
                except BaseException:
                    node.end(0.0, NEUTRAL, clock())
                    raise
                now = clock()
                node.end(now - began, OK, now)
                self._deposit()
                return response
            node.abandon()

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner(request, bound, sent, credentials, None, compression)

        state = self.state(timeout, wait_for_ready=wait_for_ready)
        self._deposit()
        return self.drive(state, lambda: self.attempt(state, metadata, send))

    def _again(
        self,
        node: ReplicaNode,
        error: Any,
        began: float,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Any:
        """The rest of a call whose first attempt failed on the fast path."""

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner(request, bound, sent, credentials, None, compression)

        self._deposit()
        state = self.state(timeout, wait_for_ready=wait_for_ready)
        if timeout is not None:
            state.deadline = began + timeout
        try:
            self.fail(state, node, error, began, timeout)
        except Again as failure:
            return self.drive(state, lambda: self.attempt(state, metadata, send), failure)

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, Any]:
        """Calls and returns the response and the call; `shoal.replica_of` says who served it."""
        state = self.state(
            timeout, wait_for_ready=wait_for_ready, request=request, metadata=metadata
        )
        self._deposit()
        if self.hedging is not None:
            self.hedging.deposit()

            def begin(inner: Any, bound: float | None, sent: Any) -> Any:
                return inner.future(request, bound, sent, credentials, None, compression)

            race = self.hedging.attempt
            return self.drive(state, lambda: race(self, state, metadata, begin))

        def send(inner: Any, bound: float | None, sent: Any) -> tuple[Any, Any]:
            return inner.with_call(request, bound, sent, credentials, None, compression)  # type: ignore[no-any-return]

        return self.drive(state, lambda: self.attempt(state, metadata, send, mark=True))

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls in the background; a `CallFuture`."""

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner.future(request, bound, sent, credentials, None, compression)

        self._deposit()
        state = self.state(
            timeout, wait_for_ready=wait_for_ready, request=request, metadata=metadata
        )
        return CallFuture(self, state, metadata, send)


class UnaryStreamMethod(Method, bases.UnaryStream):
    """One request, a stream of responses."""

    kind = "unary_stream"

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls; a `ResponseStream`, which the responses are iterated over from."""

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner(request, bound, sent, credentials, None, compression)

        self._deposit()
        state = self.state(
            timeout, wait_for_ready=wait_for_ready, request=request, metadata=metadata
        )
        return ResponseStream(self, state, metadata, send)


class _RequestStreamMethod(Method):
    """A stream of requests is serialized by us, so that what is kept can be measured and resent."""

    def bind(self, channel: grpc.Channel, replica: Replica) -> Any:
        """This method of one replica's channel, for requests that are bytes already."""
        make = getattr(channel, self.kind)
        inner = make(self.method, None, self._deserializer, self._registered)
        observer = self.channel.observer
        return inner if observer is None else observer.attempt(self, replica, inner)

    def replayed(self, requests: Iterator[Any]) -> ReplayedRequests:
        """The caller's requests, kept for another attempt."""
        return ReplayedRequests(requests, self._serializer)


class StreamUnaryMethod(_RequestStreamMethod, bases.StreamUnary):
    """A stream of requests, one response."""

    kind = "stream_unary"

    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls and returns the response."""
        response, _ = self.with_call(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )
        return response

    def with_call(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, Any]:
        """Calls and returns the response and the call."""
        state = self.state(timeout, wait_for_ready=wait_for_ready, metadata=metadata)
        state.requests = requests = self.replayed(request_iterator)
        self._deposit()

        def send(inner: Any, bound: float | None, sent: Any) -> tuple[Any, Any]:
            reader = requests.reader()
            return inner.with_call(reader, bound, sent, credentials, None, compression)  # type: ignore[no-any-return]

        return self.drive(state, lambda: self.attempt(state, metadata, send, mark=True))

    def future(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls in the background; a `CallFuture`."""
        state = self.state(timeout, wait_for_ready=wait_for_ready, metadata=metadata)
        state.requests = requests = self.replayed(request_iterator)
        self._deposit()

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner.future(requests.reader(), bound, sent, credentials, None, compression)

        return CallFuture(self, state, metadata, send)


class StreamStreamMethod(_RequestStreamMethod, bases.StreamStream):
    """A stream either way."""

    kind = "stream_stream"

    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Calls; a `ResponseStream`, which the responses are iterated over from."""
        state = self.state(timeout, wait_for_ready=wait_for_ready, metadata=metadata)
        state.requests = requests = self.replayed(request_iterator)
        self._deposit()

        def send(inner: Any, bound: float | None, sent: Any) -> Any:
            return inner(requests.reader(), bound, sent, credentials, None, compression)

        return ResponseStream(self, state, metadata, send)
