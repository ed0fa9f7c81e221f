"""Keeps one replica announced: creates its node, owns it, and makes it again when it is gone."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kazoo.exceptions import KazooException, NoAuthError, NodeExistsError, NoNodeError
from kazoo.protocol.states import EventType

from shoal import instance
from shoal.contractstore import publish
from shoal.errors import RegistrationError
from shoal.session import Session
from shoal.worker import Worker
from shoal_balancer import Replica, Status

logger = logging.getLogger(__name__)

# After a lost session everyone writes at once; spread it over this many seconds (CURATOR-320).
JITTER = 0.5
# Between tries when ZooKeeper answers with an error: doubled from the first to the last, seconds.
RETRY_FIRST, RETRY_LAST = 0.5, 10.0
# A node is taken over at once the first time. Against one who takes it back, another process with
# the same id, the pause doubles up to this many seconds, and is forgotten after twice of it.
PATIENCE = 30.0
# Between two writes of a status, seconds: each is read by every caller.
STATUS_PAUSE = 1.0
# An enabled replica that is withdrawn says DRAINING first and leaves this much later, seconds: so
# callers who watch know that it left in order (shoal.belief).
FAREWELL = 0.2


class ZooKeeperRegistration:
    """One announcement. All of its work with ZooKeeper happens on the directory's worker thread.

    The node may exist already and belong to somebody else: to this replica's former session, which
    has not expired yet and would take the node away with it (dubbo#5125). So a node is good only
    when its ``ephemeralOwner`` is our session; else it is replaced, in one transaction, so that no
    caller sees the replica missing. A node of our own is adopted: a create whose answer was lost
    has worked.

    Args:
        session: The session that owns the node.
        path: Of the node, chroot included.
        service: The service's name.
        replica: What to announce.
        worker: The directory's worker thread.
        rng: Spreads writes over time.
        forget: Called once when the announcement is withdrawn.
        contract: Path and data of the node with its contract, which has to be there first.
    """

    def __init__(
        self,
        session: Session,
        path: str,
        service: str,
        replica: Replica,
        *,
        worker: Worker,
        rng: random.Random,
        forget: Callable[[ZooKeeperRegistration], None],
        contract: tuple[str, bytes] | None = None,
    ) -> None:
        self.path = path
        self.service = service
        self.replica = replica
        self._session = session
        self._worker = worker
        self._rng = rng
        self._forget = forget
        self._contract = contract
        self._lock = threading.Lock()
        self._waiting: list[threading.Event] = []
        # Why it did not work when it was last tried.
        self._refusal: KazooException | None = None
        self._withdrawn: threading.Event | None = None
        self._status: Status | None = None
        # Of the worker thread:
        self._said_at = float("-inf")
        self._saying = False
        self._announced = False
        self._planned = False
        self._failures = 0
        self._takeovers = 0
        self._taken_over_at = float("-inf")

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
            RegistrationError: ZooKeeper did not take it within ``timeout`` seconds, or the
                announcement was withdrawn. In the first case the change is kept and written when
                ZooKeeper is back.
        """
        if self._withdrawn is not None:
            raise RegistrationError(f"{self.path} was withdrawn; announce it again")
        changes: dict[str, Any] = {}
        if status is not None:
            changes["status"] = status
        if enabled is not None:
            changes["enabled"] = enabled
        with self._lock:
            self.replica = replace(self.replica, **changes)
            # What was said before is out of date.
            self._status = None
        self.announce(timeout)

    def say(self, status: Status) -> None:
        """Changes the status soon, without waiting for it; of several in a second the last counts.

        At most one write in `STATUS_PAUSE` seconds. Without effect once it drains or is withdrawn.
        """
        with self._lock:
            if self._withdrawn is not None:
                return
            self._status = status
        self._worker.call_soon(self._say)

    def announce(self, timeout: float) -> None:
        """Waits until the node is there, ours and up to date.

        Raises:
            RegistrationError: it was not within ``timeout`` seconds.
        """
        done = threading.Event()
        with self._lock:
            self._waiting.append(done)
        if self._worker.inside:
            self._ensure()
            timeout = 0.0
        else:
            self.ensure_soon()
        if not done.wait(timeout):
            cure = "Is the address right, and does the ensemble have a quorum?"
            if isinstance(self._refusal, NoAuthError):
                cure = (
                    "It refuses: this process's certificate may not write there. An operator "
                    f"allows it with `shoal zookeeper protect --service {self.service}`"
                )
            raise RegistrationError(
                f"{self.replica.id} of service {self.service} could not be announced at "
                f"{self.path} within {timeout:g} s: ZooKeeper is {self._session.describe()}. {cure}"
            ) from self._refusal

    def withdraw(self, timeout: float = 5.0) -> None:
        """Deletes the node, if it is ours, and waits for that. Idempotent.

        While ZooKeeper is away, or does not answer within ``timeout`` seconds, it warns and
        returns: the node vanishes with its session.
        """
        done = self.begin_withdrawal()
        if self._worker.inside:
            self._delete(done)
        elif not done.wait(timeout):
            logger.warning(
                "%s could not be deleted within %g s (ZooKeeper is %s); it vanishes with its "
                "session",
                self.path,
                timeout,
                self._session.describe(),
            )

    def begin_withdrawal(self) -> threading.Event:
        """Starts what `withdraw` does; the event is set when it is done, or given up."""
        with self._lock:
            if self._withdrawn is not None:
                return self._withdrawn
            done = self._withdrawn = threading.Event()
        self._forget(self)
        self._worker.call_soon(lambda: self._say_farewell(done))
        return done

    def abandon(self) -> None:
        """In a forked child: it is the parent's announcement, and the parent keeps it."""
        self._lock = threading.Lock()
        self._withdrawn = threading.Event()
        self._withdrawn.set()

    def ensure_soon(self, delay: float = 0.0) -> None:
        """Checks the node on the worker thread and mends it; repeats that until it has worked."""
        self._worker.call_later(delay, self._ensure)

    def ensure_after_storm(self) -> None:
        """The same, at some moment within `JITTER` seconds."""
        self.ensure_soon(self._rng.uniform(0.0, JITTER))

    # All below runs on the worker thread, but for _touched.

    def _ensure(self) -> None:
        # While ZooKeeper is away there is nothing to do: its return checks everything.
        if self._withdrawn is not None or not self._session.connected:
            return
        with self._lock:
            # Taken before the replica is read: whoever waits from now on waits for the next time.
            waiting, self._waiting = self._waiting, []
            wanted = self.replica
        try:
            if self._contract is not None:
                # Before the replica, so that nobody hears of a digest that can't be read.
                publish(self._session, *self._contract)
            mended = self._mend(instance.encode(self.service, wanted))
        except KazooException as error:
            mended = False
            self._refusal = error
            delay = min(RETRY_LAST, RETRY_FIRST * 2.0**self._failures)
            self._failures += 1
            logger.warning("%s is not announced (%r); next try in %.1f s", self.path, error, delay)
            self._plan(delay * self._rng.uniform(0.8, 1.2))
        else:
            self._failures = 0
            self._refusal = None
        if not mended:
            with self._lock:
                self._waiting.extend(waiting)
            return
        self._announced = True
        for done in waiting:
            done.set()

    def _say(self) -> None:
        if self._saying:
            return
        left = self._said_at + STATUS_PAUSE - time.monotonic()
        if left > 0.0:
            self._saying = True
            self._worker.call_later(left, self._say_as_planned)
            return
        with self._lock:
            status, self._status = self._status, None
            if status is None or self.replica.status in (status, Status.DRAINING):
                return
            self.replica = replace(self.replica, status=status)
        self._said_at = time.monotonic()
        self._ensure()

    def _say_as_planned(self) -> None:
        self._saying = False
        self._say()

    def _plan(self, delay: float) -> None:
        if not self._planned:
            self._planned = True
            self._worker.call_later(delay, self._ensure_as_planned)

    def _ensure_as_planned(self) -> None:
        self._planned = False
        self._ensure()

    def _mend(self, data: bytes) -> bool:
        """Whether the node is there, ours and holds ``data``; False: later, and that is planned."""
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
                    if not self._may_take_over(stat.ephemeralOwner):
                        return False
                    self._take_over(stat, data)
                    continue  # to look at it, and to watch it
                if found != data:
                    wait(client.set_async(self.path, data))
            except NoNodeError:
                continue  # Gone between two requests: its old session expired just now.
            return True
        raise KazooException(f"{self.path} changed hands three times in a row")

    def _may_take_over(self, owner: int) -> bool:
        now = time.monotonic()
        if now - self._taken_over_at > 2.0 * PATIENCE:
            self._takeovers = 0
        pause = min(PATIENCE, 2.0**self._takeovers) if self._takeovers else 0.0
        left = self._taken_over_at + pause - now
        if left > 0.0:
            logger.error(
                "%s was taken from us by session %#x: do two processes use the id %s? Taking it "
                "back in %.0f s",
                self.path,
                owner,
                self.replica.id,
                left,
            )
            self._plan(left * self._rng.uniform(1.0, 1.5))
            return False
        self._takeovers += 1
        self._taken_over_at = now
        logger.warning(
            "%s belongs to session %#x, not to ours (%#x): replacing it",
            self.path,
            owner,
            self._session.session_id or 0,
        )
        return True

    def _take_over(self, stat: Any, data: bytes) -> None:
        change = self._session.client.transaction()
        change.delete(self.path, version=stat.version)
        change.create(self.path, data, ephemeral=True)
        # A list of results; one that failed (it changed meanwhile) is seen at the next look.
        self._session.wait(change.commit_async())

    def _touched(self, event: Any) -> None:
        # On ZooKeeper's event thread: somebody wrote or deleted our node, perhaps we ourselves.
        # An event without a type tells that the connection is gone; its return checks everything.
        if event.type != EventType.NONE and self._withdrawn is None:
            self.ensure_soon()

    def _say_farewell(self, done: threading.Event) -> None:
        if self.replica.routable and self._session.connected:
            leaving = replace(self.replica, status=Status.DRAINING, enabled=False)
            data = instance.encode(self.service, leaving)
            try:
                if self._is_ours():
                    self._session.wait(self._session.client.set_async(self.path, data))
            except KazooException as error:
                logger.info("%s leaves without a farewell: %r", self.path, error)
            else:
                self._worker.call_later(FAREWELL, lambda: self._delete(done))
                return
        self._delete(done)

    def _delete(self, done: threading.Event) -> None:
        try:
            if not self._session.connected:
                raise KazooException(f"ZooKeeper is {self._session.describe()}")  # noqa: TRY301
            if self._is_ours():
                self._session.wait(self._session.client.delete_async(self.path))
        except NoNodeError:
            logger.debug("%s was gone already", self.path)
        except KazooException as error:
            if self._announced:
                logger.warning(
                    "%s could not be deleted (%r); it vanishes with its session", self.path, error
                )
        done.set()

    def _is_ours(self) -> bool:
        try:
            _, stat = self._session.wait(self._session.client.get_async(self.path))
        except NoNodeError:
            return False
        return bool(stat.ephemeralOwner == self._session.session_id)
