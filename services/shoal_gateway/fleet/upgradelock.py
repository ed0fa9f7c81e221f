"""One upgrade at a time: a lock in ZooKeeper that says who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shoal.directory import Directory
from shoal.errors import CoordinationError, LockTakenError, LockTimeoutError
from shoal.recipes.lock import Lock
from shoal.tls import Tls
from shoal_gateway.fleet.errors import FleetError

NAME = "upgrade"
# Seconds until ZooKeeper must have answered, and that it keeps the lock of who was killed.
CONNECT = 15.0
SESSION = 10.0


class UpgradeRunsError(FleetError):
    """Somebody else upgrades this fleet; the message says who."""


@contextmanager
def held(
    zookeeper: str, what: str, lost: Callable[[], None], tls: Tls | None = None
) -> Iterator[None]:
    """Holds the fleet's upgrade lock; it ends with our session at the latest.

    Args:
        zookeeper: Address with chroot.
        what: What it is held for, for whoever asks.
        lost: Called when the lock was lost, so that another may hold it by now.
        tls: The certificate to show; None for plain text.

    Raises:
        UpgradeRunsError: another upgrade holds it.
        FleetError: ZooKeeper does not answer.
    """
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(), "what": what}
    with Directory(zookeeper, session_timeout=SESSION, tls=tls) as directory:
        lock = Lock(directory, NAME, who=json.dumps(facts), on_lost=lambda _reason: lost())
        try:
            lock.acquire(CONNECT, wait=False)
        except LockTakenError as error:
            raise UpgradeRunsError(_refusal(error.holder)) from error
        except (LockTimeoutError, CoordinationError) as error:
            raise FleetError(
                f"the upgrade lock could not be had from ZooKeeper at {zookeeper}: {error}"
            ) from error
        try:
            yield
        finally:
            lock.release()


def _refusal(holder: bytes) -> str:
    said = holder.decode("utf-8", "replace")
    try:
        facts = json.loads(said)
        since = time.strftime("%H:%M:%S", time.localtime(facts["since"]))
        who = f"{facts['what']} by process {facts['pid']} on {facts['host']}, since {since}"
    except (KeyError, TypeError, ValueError):
        who = said or "by somebody who does not say who"
    return (
        f"another upgrade of this fleet is under way: {who}; wait until it has ended (one that was "
        f"killed holds the lock for {SESSION:g} s more)"
    )
