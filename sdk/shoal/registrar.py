"""Keeps one replica announced: creates its node, owns it, and makes it again when it is gone."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError

from shoal import instance
from shoal.errors import RegistrationError
from shoal.session import Session
from shoal.worker import Worker
from shoal_balancer import Replica, Status

logger = logging.getLogger(__name__)

# After a lost session everyone writes at once; spread it over this many seconds.
JITTER = 0.5
# Before the next try when ZooKeeper answered with an error, seconds.
AGAIN = 1.0


class ZooKeeperRegistration:
    """One announcement. All of its work with ZooKeeper happens on the directory's worker thread.

    The node may exist already and belong to somebody else: to this replica's former session, which
    has not expired yet and would take the node away with it (dubbo#5125). So a node is good only
    when its ``ephemeralOwner`` is our session; else it is deleted and made anew.

    Args:
        session: Gives the present session; replaced after a fork only.
        path: Of the node.
        service: The service's name.
        replica: What to announce.
        secure: Whether its port speaks TLS.
        worker: The directory's worker thread.
        forget: Called once when the announcement is withdrawn.
    """

    def __init__(
        self,
        session: Session,
        path: str,
        service: str,
        replica: Replica,
        *,
        secure: bool,
        worker: Worker,
        forget: Callable[[ZooKeeperRegistration], None],
    ) -> None:
        self.path = path
        self.service = service
        self.replica = replica
        self._session = session
        self._secure = secure
        self._worker = worker
        self._forget = forget
        self._withdrawn = False

    def __repr__(self) -> str:
        return f"<ZooKeeperRegistration {self.path} of {self.replica.target}>"

    def update(
        self,
        *,
        status: Status | None = None,
        enabled: bool | None = None,
        timeout: float = 5.0,
    ) -> None:
        """Changes the announcement; returns when ZooKeeper has it.

        Raises:
            RegistrationError: ZooKeeper did not take it within ``timeout`` seconds. The change is
                kept and written at the next connect.
        """
        changes: dict[str, Any] = {}
        if status is not None:
            changes["status"] = status
        if enabled is not None:
            changes["enabled"] = enabled
        self.replica = replace(self.replica, **changes)
        self.announce(timeout)

    def announce(self, timeout: float) -> None:
        """Waits until the node is there, ours and up to date.

        Raises:
            RegistrationError: it was not within ``timeout`` seconds.
        """
        done = threading.Event()
        self.ensure_soon(done=done)
        if not done.wait(timeout):
            raise RegistrationError(
                f"{self.replica.id} of service {self.service} could not be announced at "
                f"{self.path} within {timeout:g} s: ZooKeeper is {self._session.describe()}. "
                "Is the address right, and does the ensemble have a quorum?"
            )

    def withdraw(self, timeout: float = 5.0) -> None:
        """Deletes the node, if it is ours. Idempotent."""
        if self._withdrawn:
            return
        self._withdrawn = True
        self._forget(self)
        done = threading.Event()
        self._worker.call_soon(lambda: self._delete(done))
        if not done.wait(timeout):
            logger.warning(
                "%s could not be deleted within %g s (ZooKeeper is %s); it vanishes with its "
                "session",
                self.path,
                timeout,
                self._session.describe(),
            )

    def ensure_soon(self, *, jitter: bool = False, done: threading.Event | None = None) -> None:
        """Checks the node on the worker thread and mends it; retries until that has worked."""
        delay = random.uniform(0.0, JITTER) if jitter else 0.0  # noqa: S311 - no secret
        self._worker.call_later(delay, lambda: self._ensure(done))

    def _ensure(self, done: threading.Event | None) -> None:
        if self._withdrawn or (done is not None and done.is_set()):
            return
        if not self._session.connected:
            # The next connect checks everything; a caller who waits is served then too.
            if done is not None:
                self._worker.call_later(0.05, lambda: self._ensure(done))
            return
        try:
            self._mend()
        except (KazooException, self._session.client.handler.timeout_exception) as error:
            logger.warning("%s is not announced yet: %r; trying again", self.path, error)
            self._worker.call_later(
                AGAIN * random.uniform(0.5, 1.0),  # noqa: S311 - no secret
                lambda: self._ensure(done),
            )
            return
        if done is not None:
            done.set()

    def _mend(self) -> None:
        data = instance.encode(self.service, self.replica, secure=self._secure)
        client, wait = self._session.client, self._session.wait
        for _ in range(3):
            try:
                wait(client.create_async(self.path, data, ephemeral=True, makepath=True))
            except NodeExistsError:
                pass
            else:
                logger.info("announced %s", self.path)
            try:
                found, stat = wait(client.get_async(self.path, watch=self._touched))
                if stat.ephemeralOwner != self._session.session_id:
                    logger.warning(
                        "%s belongs to session 0x%x, not to ours (0x%x): replacing it. Seen again "
                        "and again, this means that two processes use one id.",
                        self.path,
                        stat.ephemeralOwner,
                        self._session.session_id or 0,
                    )
                    wait(client.delete_async(self.path, version=stat.version))
                    continue
                if found != data:
                    wait(client.set_async(self.path, data))
            except NoNodeError:
                # Gone between two requests: its old session expired just now.
                continue
            return
        raise KazooException(f"{self.path} changed hands three times in a row")

    def _touched(self, _event: object) -> None:
        # On ZooKeeper's event thread: somebody wrote or deleted our node, perhaps we ourselves.
        if not self._withdrawn:
            self.ensure_soon()

    def _delete(self, done: threading.Event) -> None:
        client, wait = self._session.client, self._session.wait
        if not self._session.connected:
            return
        try:
            _, stat = wait(client.get_async(self.path))
            if stat.ephemeralOwner == self._session.session_id:
                wait(client.delete_async(self.path))
        except NoNodeError:
            logger.debug("%s was gone already", self.path)
        except (KazooException, client.handler.timeout_exception) as error:
            logger.warning("%s could not be deleted: %r", self.path, error)
            return
        done.set()
