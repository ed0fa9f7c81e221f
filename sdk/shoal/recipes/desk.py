"""What the recipes of one process share: the session, a thread, and proofs that the session lives.

While anything is held, one small write that changes nothing is sent every so often, however much
is held; its answer moves the deadlines of all (`Proofs`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from kazoo.exceptions import NoAuthError
from kazoo.protocol.states import KazooState

from shoal.errors import DirectoryClosedError
from shoal.recipes.steps import Bell, Script, Steps, T
from shoal.recipes.tenure import Proofs, Tenure, uptime
from shoal.session import Session
from shoal.worker import Worker

logger = logging.getLogger(__name__)

# Proofs asked for within one session timeout.
PROOFS = 8


class Desk:
    """One per directory and process; all of its work happens on one thread that never blocks.

    Args:
        session: Of the directory.
        chroot: The directory's, "" for none.
        clock: Monotonic seconds; see `uptime`.
    """

    def __init__(
        self, session: Session, chroot: str, *, clock: Callable[[], float] = uptime
    ) -> None:
        self.session = session
        self.client = session.client
        self.chroot = chroot
        self.worker = Worker("shoal-recipes")
        self.clock = clock
        self.closed = False
        self._tenures: set[Tenure] = set()
        self._running: set[Steps[Any]] = set()
        self._waiting: list[Bell] = []
        self._proving = False
        self._proofs = Proofs()
        self._refused = False
        # The thread starts here: gevent's hub, where answers arrive, may not start one.
        self.worker.call_soon(lambda: self.client.add_listener(self._changed))

    def run(self, script: Script[T]) -> Steps[T]:
        """Carries a script on; its outcome is a future."""
        steps = Steps(self.worker, script)
        self._running.add(steps)
        steps.outcome.add_done_callback(lambda _outcome: self._running.discard(steps))
        # Whichever of this and close comes second sees the other.
        if self.closed:
            steps.fail(DirectoryClosedError("the directory was closed; make a new one"))
        else:
            steps.start()
        return steps

    def until_connected(self) -> Script[None]:
        """Part of a script: waits for a connection."""
        while not self.session.connected:
            bell = Bell()
            self._waiting.append(bell)
            if not self.session.connected:
                yield bell

    def enter(self, tenure: Tenure) -> None:
        """Something is held: watches its deadline and asks for proofs that move it."""
        self._tenures.add(tenure)
        self._check(tenure)
        if not self._proving:
            self._proving = True
            self.worker.call_soon(self._prove)

    def leave(self, tenure: Tenure) -> None:
        """It is not held any more."""
        self._tenures.discard(tenure)

    def close(self, why: str) -> None:
        """The session ends: nothing is held, nobody waits any longer."""
        self.closed = True
        self.client.remove_listener(self._changed)
        for tenure in tuple(self._tenures):
            tenure.lose(why)
        self.worker.call_soon(lambda: self._end_scripts(why))
        self.worker.call_soon(self.worker.stop)

    def abandon(self) -> None:
        """In a forked child: all of it is the parent's."""
        self.closed = True
        for tenure in self._tenures:
            tenure.abandon()

    def _end_scripts(self, why: str) -> None:
        for steps in tuple(self._running):
            steps.fail(DirectoryClosedError(why))

    def _changed(self, state: str) -> None:
        # On kazoo's thread.
        if state == KazooState.LOST:
            for tenure in tuple(self._tenures):
                tenure.lose("its ZooKeeper session has ended")
        elif state == KazooState.CONNECTED:
            self.worker.call_soon(self._connected)

    def _connected(self) -> None:
        waiting, self._waiting = self._waiting, []
        for bell in waiting:
            bell.ring()
        self._ask()

    def _check(self, tenure: Tenure) -> None:
        if tenure in self._tenures and tenure.held:
            self.worker.call_later(tenure.until - self.clock(), lambda: self._check(tenure))

    def _prove(self) -> None:
        if not self._tenures:
            self._proving = False
            return
        self._ask()
        self.worker.call_later(self.session.timeout / PROOFS, self._prove)

    def _ask(self) -> None:
        session = self.session.session_id
        if session is None or not self._tenures:
            return
        # Of the directory's own: on an ensemble that others use too, "/" may be closed to us.
        root = self.chroot or "/"
        result, until = self.proof(root)

        def answered(result: Any) -> None:
            if not result.successful():
                return
            refused = any(isinstance(each, NoAuthError) for each in result.value)
            if refused and not self._refused:
                logger.error(
                    "ZooKeeper does not let this process read %s, so nothing is held for longer "
                    "than a session's timeout: give it READ there (setAcl, or with certificates "
                    "`shoal zookeeper protect`)",
                    root,
                )
            self._refused = refused
            # The same session still: an answer to another one proves nothing for this.
            if result.value == [True] and self.session.session_id == session:
                for tenure in tuple(self._tenures):
                    tenure.prove(session, until())

        result.rawlink(answered)

    def proof(self, path: str) -> tuple[Any, Callable[[], float]]:
        """Has a quorum say that a node exists, in this session.

        Returns:
            kazoo's asynchronous result, ``[True]`` if it does; and, to be asked then, until when
            the session lives.
        """
        session, sent = self.session.session_id or 0, self.clock()
        # A transaction that only checks is carried out as a write is, and changes nothing.
        transaction = self.client.transaction()
        transaction.check(path, -1)
        self._proofs.sent(session, sent)
        return transaction.commit_async(), lambda: self._proofs.until(
            session, sent, self.session.timeout
        )
