"""One ZooKeeper session of one process: connection, state, and what to do when either changes."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.states import KazooState

from shoal.worker import Worker

logger = logging.getLogger(__name__)

# Reconnect for ever: 0.1 s, doubled up to 5 s (anchors/zookeeper.md; kazoo's default has no useful
# bound), with up to 40 % jitter so that a fleet does not come back in step.
RECONNECT: dict[str, Any] = {
    "max_tries": -1,
    "delay": 0.1,
    "backoff": 2,
    "max_delay": 5.0,
    "max_jitter": 0.4,
}

# Longest wait for one answer of a connected server, seconds.
ANSWER = 10.0


def make_handler() -> Any:
    """The kazoo handler for this process: gevent's where gevent has patched threading."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from kazoo.handlers.gevent import SequentialGeventHandler

        return SequentialGeventHandler()
    return SequentialThreadingHandler()


class Session:
    """A kazoo client that reports state changes on the directory's worker thread.

    kazoo calls state listeners on the thread that reads from ZooKeeper; anything that blocks there
    stops the session (kazoo#355). So the listener notes the state and hands over.

    Args:
        hosts: ZooKeeper servers with chroot.
        timeout: Session timeout to ask for, seconds; the server clamps it.
        worker: Where ``on_connected`` runs.
        on_connected: Called after every connect, with whether the session is a new one.
    """

    def __init__(
        self,
        hosts: str,
        timeout: float,
        worker: Worker,
        on_connected: Callable[[bool], None],
    ) -> None:
        self._worker = worker
        self._on_connected = on_connected
        self._since = time.monotonic()
        self._word = "connecting"
        self._last_session: int | None = None
        self.client = KazooClient(
            hosts=hosts,
            timeout=timeout,
            handler=make_handler(),
            connection_retry=RECONNECT,
        )
        self.client.add_listener(self._changed)

    def start(self) -> None:
        """Begins to connect, in the background, for as long as it takes."""
        self.client.start_async()

    def close(self) -> None:
        """Ends the session: its ephemeral nodes vanish at once if ZooKeeper hears of it."""
        self.client.remove_listener(self._changed)
        try:
            self.client.stop()
        finally:
            self.client.close()

    @property
    def connected(self) -> bool:
        """Whether requests reach a server now, as far as the client knows."""
        return bool(self.client.connected)

    @property
    def session_id(self) -> int | None:
        """The session's id, None before the first connect."""
        identity = self.client.client_id
        return identity[0] if identity and identity[0] else None

    def describe(self) -> str:
        """The state for a person, such as "connected" or "suspended for 3.2 s"."""
        if self._word == "connected":
            return "connected"
        return f"{self._word} for {time.monotonic() - self._since:.1f} s"

    def wait(self, result: Any, timeout: float = ANSWER) -> Any:
        """The value of one of kazoo's asynchronous results.

        Raises:
            kazoo.exceptions.KazooException: what the server answered.
            Exception: the handler's timeout exception when no answer came in time.
        """
        return result.get(block=True, timeout=timeout)

    def _changed(self, state: str) -> None:
        self._since = time.monotonic()
        if state == KazooState.CONNECTED:
            self._word = "connected"
            self._worker.call_soon(self._greet)
        else:
            self._word = "suspended" if state == KazooState.SUSPENDED else "session lost"

    def _greet(self) -> None:
        session = self.session_id
        fresh = session != self._last_session
        if fresh and self._last_session is not None:
            logger.warning(
                "ZooKeeper session 0x%x is lost; 0x%x takes its place",
                self._last_session,
                session or 0,
            )
        self._last_session = session
        self._on_connected(fresh)
