"""One ZooKeeper session of one process: its connection, its state, its end.

What kazoo leaves to its users is settled here: reconnecting at a bounded pace, leaving the event
thread before anything blocks, the session timeout that the server granted, and a deadline of our
own, because a client that is cut off is never told that its session has ended (kazoo#89).
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import OperationTimeoutError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.states import KazooState, KeeperState

from shoal import zookeepertls
from shoal.tls import Tls
from shoal.worker import Worker

logger = logging.getLogger(__name__)

HandlerFactory = Callable[[], Any]

# For ever, 0.1 s doubled up to 5 s; kazoo's own default doubles to a minute and more. The jitter
# (a share of each delay) keeps a fleet from coming back in step.
RECONNECT: dict[str, Any] = {
    "max_tries": -1,
    "delay": 0.1,
    "backoff": 2,
    "max_delay": 5.0,
    "max_jitter": 0.4,
}

# Longest wait for one answer of a connected server, seconds.
ANSWER = 10.0
# Before kazoo's connection thread is started again after it ended by a fault, seconds.
REVIVE = 2.0


@dataclass(frozen=True, slots=True)
class Connection:
    """What is known of the connection, replaced as a whole.

    Attributes:
        word: "connecting", "connected", "suspended" or "lost".
        since: When that began, by a monotonic clock, seconds.
    """

    word: str
    since: float

    @property
    def up(self) -> bool:
        """Whether requests reach a server, as far as the client knows."""
        return self.word == "connected"

    def doubtful(self, now: float, timeout: float) -> bool:
        """Whether the session has probably ended although nobody could tell us."""
        return self.word == "lost" or (self.word == "suspended" and now - self.since > timeout)

    def describe(self, now: float, timeout: float) -> str:
        """For a person: "connected", "suspended for 3.2 s"."""
        if self.up:
            return "connected"
        told = f"{self.word} for {now - self.since:.1f} s"
        if self.word == "suspended" and self.doubtful(now, timeout):
            return f"{told}, its session has probably expired"
        return told


def default_handler() -> Any:
    """Kazoo's handler for this process: gevent's where gevent has patched threading."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from kazoo.handlers.gevent import SequentialGeventHandler

        return SequentialGeventHandler()
    return SequentialThreadingHandler()


class Session:
    """A kazoo client that tells of its connects on the directory's worker thread.

    kazoo calls listeners on the thread that reads from ZooKeeper; one that blocks there stops the
    session (kazoo#355). So the listener notes the state and hands over.

    Args:
        servers: ZooKeeper servers without a chroot; paths are whole here, because kazoo can't
            create a chroot of several levels from within.
        timeout: Session timeout to ask for, seconds; the server clamps it.
        worker: Where ``on_connected`` runs.
        on_connected: Called after every connect, with whether a session was lost since the last.
        handler: Makes kazoo's handler; by default `default_handler`.
        clock: Monotonic seconds.
        tls: The certificate to show to a ZooKeeper that speaks TLS; None for plain text.
    """

    def __init__(
        self,
        servers: str,
        timeout: float,
        worker: Worker,
        on_connected: Callable[[bool], None],
        *,
        handler: HandlerFactory | None = None,
        clock: Callable[[], float] = time.monotonic,
        tls: Tls | None = None,
    ) -> None:
        self.timeout = timeout
        self._asked = timeout
        self._worker = worker
        self._on_connected = on_connected
        self._clock = clock
        self._connection = Connection("connecting", clock())
        self._last_session: int | None = None
        self._closing = False
        made = (handler or default_handler)()
        if tls is not None:
            zookeepertls.demand_name(made, tls.domain)
        self.client = KazooClient(
            hosts=servers,
            timeout=timeout,
            handler=made,
            # kazoo refuses a retry whose sleep is not the handler's: gevent's differs.
            connection_retry={**RECONNECT, "sleep_func": made.sleep_func},
            command_retry={"sleep_func": made.sleep_func},
            **(zookeepertls.settings(tls) if tls is not None else {}),
        )
        self._note_granted_timeout()
        self.client.add_listener(self._changed)

    def start(self) -> None:
        """Begins to connect, in the background, for as long as it takes."""
        self.client.start_async()

    def close(self, timeout: float = 5.0) -> None:
        """Ends the session: its ephemeral nodes vanish at once if ZooKeeper hears of it.

        Args:
            timeout: Seconds to wait; kazoo itself may wait longer for a server that is silent, so
                it does that on a thread of its own.
        """
        self._closing = True
        self.client.remove_listener(self._changed)
        stopper = threading.Thread(target=self._stop, name="shoal-session-close", daemon=True)
        stopper.start()
        stopper.join(timeout)
        if stopper.is_alive():
            logger.warning(
                "the ZooKeeper session could not be ended within %g s (%s); it will expire",
                timeout,
                self.describe(),
            )

    def abandon(self) -> None:
        """In a forked child: drops the client without a word; its socket is the parent's too."""
        self._closing = True
        # kazoo stops its handler at exit; its threads and locks are in an unknown state here.
        atexit.unregister(self.client.handler.stop)

    @property
    def connected(self) -> bool:
        """Whether requests reach a server now, as far as the client knows."""
        return bool(self.client.connected)

    @property
    def session_id(self) -> int | None:
        """The session's id, None while there is no connection."""
        identity = self.client.client_id
        return identity[0] if identity else None

    @property
    def doubtful(self) -> bool:
        """Whether the session has probably ended, by our own clock: locks and leaders must stop."""
        return self._connection.doubtful(self._clock(), self.timeout)

    def describe(self) -> str:
        """For a person: "connected", "suspended for 3.2 s"."""
        return self._connection.describe(self._clock(), self.timeout)

    def wait(self, result: Any, timeout: float = ANSWER) -> Any:
        """The value of one of kazoo's asynchronous results.

        Raises:
            KazooException: what the server answered; OperationTimeoutError, one of its kind, when
                it did not within ``timeout`` seconds.
        """
        # Not get(timeout): under gevent that raises a BaseException.
        result.wait(timeout)
        if not result.ready():
            raise OperationTimeoutError(
                f"no answer within {timeout:g} s; ZooKeeper is {self.describe()}"
            )
        return result.get(block=False)

    def _changed(self, state: str) -> None:
        now = self._clock()
        if state == KazooState.CONNECTED:
            self._connection = Connection("connected", now)
            self._worker.call_soon(self._greet)
            return
        word = "suspended" if state == KazooState.SUSPENDED else "lost"
        # "connecting" is what a session is that was never there; losing it would say too much.
        if self._last_session is not None:
            self._connection = Connection(word, now)
            self._worker.call_later(self.timeout, self._forget_zxid)
        if self.client.client_state == KeeperState.CLOSED and not self._closing:
            # The connection thread ended by itself: a fault in it, which must not be the last word.
            logger.error("kazoo gave up on its connection; starting it again in %g s", REVIVE)
            self._worker.call_later(REVIVE, self._revive)

    def _forget_zxid(self) -> None:
        # A server refuses a client that has seen later changes than it has, for ever if it came
        # back without its data. We read everything anew after a connect and can do without that
        # promise, but give it up only when the session has had its time.
        if not self.connected and not self._closing:
            self.client.last_zxid = 0
            self._worker.call_later(self.timeout, self._forget_zxid)

    def _revive(self) -> None:
        if not self._closing:
            self.client.start_async()

    def _greet(self) -> None:
        session = self.session_id
        if session is None:
            return  # Gone again; the next connect comes here too.
        lost = self._last_session is not None and session != self._last_session
        if lost:
            logger.warning(
                "ZooKeeper session %#x is lost; %#x takes its place", self._last_session, session
            )
        self._last_session = session
        self._on_connected(lost)

    def _stop(self) -> None:
        try:
            self.client.stop()
        except Exception:
            logger.exception("kazoo could not end its session; it will expire")
        finally:
            self.client.close()

    def _note_granted_timeout(self) -> None:
        # kazoo tells the granted timeout to nobody; its connection handler returns two thirds of it
        # as the time after which a silent server counts as gone.
        handler = self.client._connection  # noqa: SLF001 - no public way (kazoo 2.11)
        connect = handler._connect  # noqa: SLF001

        def connect_and_note(*args: Any) -> tuple[float, float]:
            read_timeout, connect_timeout = connect(*args)
            granted = read_timeout * 1.5 / 1000.0
            if abs(granted - self.timeout) > 0.01 and abs(granted - self._asked) > 0.01:
                logger.warning(
                    "ZooKeeper grants a session timeout of %g s, not the %g s asked for",
                    granted,
                    self._asked,
                )
            self.timeout = granted
            return read_timeout, connect_timeout

        handler._connect = connect_and_note  # noqa: SLF001
