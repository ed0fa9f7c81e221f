"""What a server tells systemd: that it is ready, that it lives, that it leaves.

The protocol is one datagram to the socket that ``NOTIFY_SOCKET`` names; see sd_notify(3). Without
that variable nobody is told anything. What can't be delivered is logged and forgotten: a server
that serves does not end because its manager does not listen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future

logger = logging.getLogger(__name__)

READY = "READY=1"
ALIVE = "WATCHDOG=1"
STOPPING = "STOPPING=1"

# Signs of life in the time after which systemd kills: one may be lost, and one be late.
BEATS = 3
# Seconds that systemd has to take a message.
PATIENCE = 1.0


class Notifier:
    """The way to the service manager that started this process, if one did.

    Args:
        environment: Where the manager's variables are.
        pid: This process; a watchdog that is meant for another is none of our business.

    Attributes:
        every: Seconds between two signs of life; None: nobody waits for any.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, *, pid: int | None = None
    ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        own = str(os.getpid() if pid is None else pid)
        limit = environment.get("WATCHDOG_USEC", "")
        watched = limit.isdigit() and environment.get("WATCHDOG_PID", own) == own
        watched = watched and bool(self._address)
        self.every = (int(limit) / 1e6 / BEATS or None) if watched else None

    def say(self, *states: str) -> None:
        """Sends states, ``READY=1`` or ``STATUS=for people``; never raises, blocks for moments."""
        if not self._address:
            return
        # A leading @ stands for the null byte of an abstract address.
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.settimeout(PATIENCE)
                out.sendto("\n".join(states).encode(), address)
        except OSError as error:
            logger.warning("systemd could not be told %s: %s", states, error)

    def watched(self, orders: queue.SimpleQueue[str], prove: Callable[[], Future[bool]]) -> str:
        """Waits for an order, and tells the watchdog meanwhile that this process lives.

        Args:
            orders: Where the order comes from.
            prove: Begins a proof of life on the threads that it is about. Until the proof has come
                to true, and this thread to look at it, the watchdog hears nothing. One that raises
                has not come to true; the error is logged.
        """
        proof: Future[bool] | None = None
        while True:
            if self.every is not None and (proof is None or proof.done()):
                if proof is not None and _yes(proof.result):
                    self.say(ALIVE)
                proof = prove()
            try:
                return orders.get(timeout=self.every)
            except queue.Empty:
                continue

    async def watched_aio(self, ordered: asyncio.Event, alive: Callable[[], bool] | None) -> None:
        """The same on an event loop, which proves that it turns by coming here."""
        while True:
            try:
                await asyncio.wait_for(ordered.wait(), self.every)
            except TimeoutError:
                if alive is None or _yes(alive):
                    self.say(ALIVE)
            else:
                return


def _yes(alive: Callable[[], bool]) -> bool:
    try:
        return alive()
    except Exception:
        logger.exception("the proof of life failed, so the watchdog hears nothing")
        return False
