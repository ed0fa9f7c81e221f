"""One upgrade at a time: a lock in ZooKeeper that says who holds it."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState

from shoal_gateway.fleet.errors import FleetError

logger = logging.getLogger(__name__)

PATH = "/locks/upgrade"
# Seconds until ZooKeeper must have answered, and that it keeps the lock of who was killed.
CONNECT = 15.0
SESSION = 10.0


class UpgradeRunsError(FleetError):
    """Somebody else upgrades this fleet; the message says who."""


@contextmanager
def held(zookeeper: str, what: str, lost: Callable[[], None]) -> Iterator[None]:
    """Holds the fleet's upgrade lock; it ends with our session at the latest.

    Args:
        zookeeper: Address with chroot.
        what: What it is held for, for whoever asks.
        lost: Called when the session was lost, so that another may hold it by now.

    Raises:
        UpgradeRunsError: another upgrade holds it.
        FleetError: ZooKeeper does not answer.
    """
    client = KazooClient(hosts=zookeeper, timeout=SESSION)
    leaving = False

    def changed(state: str) -> None:
        if state == KazooState.LOST and not leaving:
            lost()

    try:
        try:
            client.start(timeout=CONNECT)
            facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
            lock = client.Lock(PATH, json.dumps({**facts, "what": what}))
            if not lock.acquire(blocking=False):
                raise UpgradeRunsError(_refusal(lock.contenders()))
        except (KazooException, KazooTimeoutError) as error:
            raise FleetError(
                f"the upgrade lock could not be had from ZooKeeper at {zookeeper}: {error!r}"
            ) from error
        client.add_listener(changed)
        try:
            yield
        finally:
            leaving = True
            try:
                lock.release()
            except KazooException as error:
                # It goes with the session, which ends here.
                logger.warning("the upgrade lock was not released in order: %r", error)
    finally:
        leaving = True
        client.stop()
        client.close()


def _refusal(contenders: list[str]) -> str:
    if not contenders:
        return "an upgrade of this fleet has just ended or begun; try again"
    try:
        holder = json.loads(contenders[0])
        since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
        who = f"{holder['what']} by process {holder['pid']} on {holder['host']}, since {since}"
    except (KeyError, TypeError, ValueError):
        who = contenders[0]
    return (
        f"another upgrade of this fleet is under way: {who}; wait until it has ended (one that was "
        f"killed holds the lock for {SESSION:g} s more)"
    )
