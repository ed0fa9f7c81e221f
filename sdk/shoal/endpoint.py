"""The way to one replica: its connection, what is called over it, and hello and goodbye."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from shoal_balancer import Replica

if TYPE_CHECKING:
    from shoal.pool import Pool
    from shoal.tls import Material

# Before a hello that was not heard is said again: doubled each time, seconds.
HELLO_AGAIN = 0.5
HELLO_AGAIN_AT_MOST = 15.0


class Transport(Protocol):
    """How a channel opens and closes connections, and does things later."""

    def open(self, target: str, announced: Mapping[str, str]) -> Any:
        """A grpc channel to one replica, not connected yet."""

    def close(self, channel: Any) -> None:
        """Closes a channel, after a goodbye that was said over it has been heard, or soon."""

    def state(self, channel: Any, *, connect: bool = False) -> grpc.ChannelConnectivity | None:
        """The state of its connection, None when that can't be told; ``connect`` asks for one."""

    def hello(self, channel: Any, caller_id: str, missed: Callable[[], object]) -> None:
        """Says ``shoal.v1.Replica/Hello``, in the background.

        ``missed`` is called when a replica that may know the word did not hear it.
        """

    def released(self, channel: Any, caller_id: str) -> None:
        """Says ``shoal.v1.Replica/Released``, in the background."""

    def later(self, delay: float, task: Callable[[], object]) -> None:
        """Runs a task that does not block, in ``delay`` seconds, not on the thread that asks."""


CONNECTED = (grpc.ChannelConnectivity.READY, None)


class Endpoint:
    """The way to one replica: a grpc channel, opened at the first call, and its multi-callables.

    Attributes:
        callables: For the key of each method object of our channel the multi-callable of this
            replica's.
        made_with: The certificate and authorities that the connection was opened with; None where
            it goes by none of ours, or is not opened.
    """

    __slots__ = (
        "_channel",
        "_lock",
        "_missed",
        "_pool",
        "_replica",
        "_wanted",
        "callables",
        "closed",
        "greeted",
        "made_with",
    )

    def __init__(self, pool: Pool, replica: Replica) -> None:
        self.callables: dict[int, Any] = {}
        self.greeted = False
        self.closed = False
        self._wanted = False
        self._missed = 0
        self._pool = pool
        self._replica = replica
        self._lock = threading.Lock()
        self._channel: Any = None
        self.made_with: Material | None = None

    @property
    def channel(self) -> Any:
        """The grpc channel; opened here at the first use.

        Raises:
            ValueError: the endpoint was closed meanwhile (as grpcio's own channel raises).
        """
        if self._channel is None:
            with self._lock:
                if self.closed:
                    raise ValueError(
                        f"Cannot invoke RPC on closed channel to {self._replica.target}"
                    )
                if self._channel is None:
                    self._open()
            self.greet()
        return self._channel

    def _open(self) -> None:
        # Read before: a connection is rather made anew once too often than left with the old.
        self.made_with = self._pool.material()
        self._channel = self._pool.transport.open(self._replica.target, self._replica.metadata)

    def anew(self) -> Endpoint:
        """Another connection to the same replica, opened, but with no hello said over it yet."""
        made = Endpoint(self._pool, self._replica)
        made._open()
        return made

    def outlived(self) -> None:
        """Another connection takes the calls, and says hello and goodbye from now on."""
        self._wanted = False
        self.greeted = False

    @property
    def opened(self) -> bool:
        """Whether anything was ever sent there."""
        return self._channel is not None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._channel is not None and self.state() in CONNECTED

    def state(self, *, connect: bool = False) -> grpc.ChannelConnectivity | None:
        """The state of the connection; None while none was ever asked for, or it can't be told."""
        channel = self._channel
        if channel is None:
            return None
        return self._pool.transport.state(channel, connect=connect)

    def bind(self, method: Any) -> Any:
        """This replica's multi-callable for a method object of our channel, kept."""
        inner = method.bind(self.channel, self._replica)
        self.callables[method.key] = inner
        return inner

    def greet(self) -> None:
        """Tells the replica that we may call, so that a drain of its waits for us."""
        self._wanted = True
        if self._channel is not None and not self.greeted:
            self.greeted = True
            self._pool.transport.hello(self._channel, self._pool.caller_id, self._unheard)

    def release(self) -> None:
        """Tells the replica that our last call there has ended."""
        self._wanted = False
        if self._channel is not None and self.greeted:
            self.greeted = False
            self._pool.transport.released(self._channel, self._pool.caller_id)

    def _unheard(self) -> None:
        """A hello was not heard: the replica may come up later, and is to know us by then."""
        self.greeted = False
        delay = min(HELLO_AGAIN * 2.0**self._missed, HELLO_AGAIN_AT_MOST)
        self._missed = min(self._missed + 1, 10)
        self._pool.transport.later(delay, self._greet_again)

    def _greet_again(self) -> None:
        if self._wanted and not self.closed:
            self.greet()

    def close(self) -> None:
        """Closes the connection. Idempotent."""
        with self._lock:
            self.closed = True
            channel, self._channel = self._channel, None
        self.callables = {}
        if channel is not None:
            self._pool.transport.close(channel)
