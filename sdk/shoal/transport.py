"""The sync half of a pool: blocking grpc channels, and one housekeeping thread for the process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from shoal import connectivity, forks, keepalive
from shoal.worker import Worker
from shoal_protos.v1 import replica_pb2

logger = logging.getLogger(__name__)

HELLO = "/shoal.v1.Replica/Hello"
RELEASED = "/shoal.v1.Replica/Released"
# How long a replica may take to hear either, seconds.
PATIENCE = 5.0
# How long the end of a connection waits for that, seconds.
GOODBYE = 0.5

# grpc's default lets a channel wait up to 120 s before it connects again, which is long when
# ZooKeeper says that the replica lives. Each replica has a connection of its own anyway.
DEFAULTS: dict[str, Any] = {
    "grpc.initial_reconnect_backoff_ms": 1000,
    "grpc.max_reconnect_backoff_ms": 10_000,
    "grpc.use_local_subchannel_pool": 1,
}

# A word that ended so may be heard later; a server that does not know it never will.
MISSED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Options = Sequence[tuple[str, Any]]
Credentials = Callable[[], grpc.ChannelCredentials]


def merged(options: Options, announced: Mapping[str, str]) -> list[tuple[str, Any]]:
    """The caller's channel options over our defaults, for a replica that announced this."""
    return list({**DEFAULTS, **keepalive.pings(announced), **dict(options)}.items())


class _Housekeeping:
    """The process's thread for goodbyes, closings and delayed retries; a new one after a fork."""

    def __init__(self) -> None:
        self.after_fork()
        forks.on_fork(self)

    def after_fork(self) -> None:
        self.worker = Worker("shoal-housekeeping")


_housekeeping = _Housekeeping()


def aside(delay: float, task: Callable[[], object]) -> None:
    """Runs a task on the housekeeping thread, in ``delay`` seconds; it may read a small file."""
    _housekeeping.worker.call_later(delay, task)


class _Word:
    """Hello or released, on its way to one replica.

    Attributes:
        until: Until when the end of the connection may wait for it.
    """

    def __init__(self) -> None:
        self.until = time.monotonic() + GOODBYE
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._then: list[Callable[[], object]] = []

    def then(self, task: Callable[[], object]) -> None:
        """Does ``task`` when it was answered: words over one connection keep their order."""
        with self._lock:
            if not self._answered.is_set():
                self._then.append(task)
                return
        task()

    def answered(self) -> None:
        """The replica has answered, or won't."""
        with self._lock:
            self._answered.set()
        for task in self._then:
            task()

    def wait(self) -> None:
        """Waits for the answer, briefly."""
        self._answered.wait(max(self.until - time.monotonic(), 0.0))


class SyncTransport:
    """Opens blocking channels.

    Args:
        credentials: Makes those of a connection; None for plaintext.
        options: grpc's channel options.
        compression: grpc's default compression for the channel.
    """

    def __init__(
        self,
        credentials: Credentials | None,
        options: Options,
        compression: grpc.Compression | None,
    ) -> None:
        self._credentials = credentials
        self._options = options
        self._compression = compression
        # The last word said over each open channel.
        self._words: dict[grpc.Channel, _Word] = {}

    def open(self, target: str, announced: Mapping[str, str]) -> grpc.Channel:
        """A channel to one replica, which announced this in its metadata."""
        forks.starts()
        options = merged(self._options, announced)
        if self._credentials is None:
            return grpc.insecure_channel(target, options, self._compression)
        return grpc.secure_channel(target, self._credentials(), options, self._compression)

    def close(self, channel: grpc.Channel) -> None:
        """Closes it; waits up to half a second for the answer to a goodbye."""
        word = self._words.pop(channel, None)
        if word is not None:
            word.wait()
        channel.close()

    def state(
        self, channel: grpc.Channel, *, connect: bool = False
    ) -> grpc.ChannelConnectivity | None:
        """The state of its connection."""
        return connectivity.state_of(channel, connect=connect)

    def hello(self, channel: grpc.Channel, caller_id: str, missed: Callable[[], object]) -> None:
        """Says hello in the background."""
        call = channel.unary_unary(
            HELLO, replica_pb2.HelloRequest.SerializeToString, replica_pb2.HelloResponse.FromString
        )
        request = replica_pb2.HelloRequest(caller_id=caller_id)
        self._say(channel, "hello", lambda: call.future(request, timeout=PATIENCE), missed)

    def released(self, channel: grpc.Channel, caller_id: str) -> None:
        """Says released in the background."""
        call = channel.unary_unary(
            RELEASED,
            replica_pb2.ReleasedRequest.SerializeToString,
            replica_pb2.ReleasedResponse.FromString,
        )
        request = replica_pb2.ReleasedRequest(caller_id=caller_id)
        self._say(channel, "released", lambda: call.future(request, timeout=PATIENCE))

    def later(self, delay: float, task: Callable[[], object]) -> None:
        """Runs it on the housekeeping thread."""
        aside(delay, task)

    def _say(
        self,
        channel: grpc.Channel,
        name: str,
        send: Callable[[], Any],
        missed: Callable[[], object] | None = None,
    ) -> None:
        before = self._words.get(channel)
        word = self._words[channel] = _Word()

        def heard(done: Any) -> None:
            code = done.code()
            # A server that is not Shoal's does not know the word, and a dead one hears nothing.
            if code is not grpc.StatusCode.OK:
                logger.debug("%s was not heard: %s %s", name, code, done.details())
            word.answered()
            if missed is not None and code in MISSED:
                missed()

        def say() -> None:
            try:
                future = send()
            except ValueError as error:
                # grpcio's word for a channel that was closed meanwhile.
                logger.debug("%s was not said: %s", name, error)
                word.answered()
                return
            future.add_done_callback(heard)

        if before is None:
            say()
        else:
            before.then(say)
