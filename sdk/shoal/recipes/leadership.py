"""Leadership: a function that runs in one process at a time, and is told when to stop."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from shoal import forks
from shoal.directory import Directory
from shoal.errors import CoordinationError, DirectoryClosedError, LockLostError, ShoalError
from shoal.recipes.claims import leaders_path
from shoal.recipes.contention import Contention
from shoal.recipes.tenure import Tenure

logger = logging.getLogger(__name__)

# Before the next candidacy after a term that ended by itself or with an error: doubled from the
# first to the last while terms fail, ±50 %, seconds.
AGAIN_FIRST, AGAIN_LAST = 0.5, 30.0
# Longest wait of `close` for the node to go once the function has returned, seconds.
GOODBYE = 5.0


class Term:
    """The time for which one process leads; handed to the function that leads.

    Attributes:
        fence: Grows from leader to leader; for the store that enforces it.
        over: Set when the function is to return: leadership is lost, or `Leadership.close` wants
            it. Wait on it in place of sleeping.
    """

    def __init__(self, name: str, tenure: Tenure) -> None:
        self.fence = tenure.fence
        self.over = threading.Event()
        self._name = name
        self._tenure = tenure

    def __repr__(self) -> str:
        return f"<Term of {self._name} fence={self.fence} {self._tenure.over or 'leads'}>"

    @property
    def leads(self) -> bool:
        """Whether it lasts, by our own clock; never True again once it was False."""
        return self._tenure.held

    def check(self) -> None:
        """Does nothing while it lasts.

        Raises:
            LockLostError: it was lost, or is being given up; says why.
        """
        if not self._tenure.held:
            raise LockLostError(f"leadership of {self._name!r} is over: {self._tenure.over}")

    def wait(self, seconds: float) -> bool:
        """Sleeps, but not beyond the end; whether the function is to return."""
        return self.over.wait(seconds)


class Leadership:
    """Runs a function while this process leads, among all processes below the directory's chroot.

        def reap(term: shoal.Term) -> None:
            while not term.wait(1.0):
                store.expire_leases(fence=term.fence)

        with shoal.Leadership(directory, "reaper", reap):
            serve()

    One process at a time leads, the others stand in line; when it goes, one of them is woken. The
    function runs on a thread of its own. It is told to stop by ``term.over``, also when nobody but
    our own clock says that the session must have ended; this process stands for leadership again
    only when the function has returned. That it has not yet noticed when another leads already
    can't be ruled out by any clock: what must not happen twice is written with ``term.fence`` into
    a store that refuses an older fence than it has seen.

    A function that returns, or raises (which is logged), gives leadership up; after a pause this
    process is a candidate again. In a forked child nothing leads and nothing is a candidate.

    Args:
        directory: Whose session and chroot.
        name: Of what is led; the candidates' nodes are below ``/leaders/NAME``.
        lead: The function.
        who: Who this is, for whoever looks at the nodes.
        rng: Spreads candidacies.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        lead: Callable[[Term], object],
        *,
        who: str = "",
        rng: random.Random | None = None,
    ) -> None:
        self._path = leaders_path(name)
        self.name = name
        self._directory = directory
        self._lead = lead
        self._who = who
        self._rng = rng or random.Random()  # noqa: S311 - it spreads load, it keeps no secret
        self._thread: threading.Thread | None = None
        self._contention: Contention | None = None
        self._term: Term | None = None
        self._begin_process()
        forks.on_fork(self)

    def __repr__(self) -> str:
        return f"<Leadership {self.name} {self._term or 'does not lead'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def leads(self) -> bool:
        """Whether this process leads now, as far as our own clock can tell."""
        term = self._term
        return term is not None and term.leads

    def start(self) -> None:
        """Becomes a candidate, in the background; ZooKeeper may be away. Once only.

        Raises:
            DirectoryClosedError: the directory was closed.
            CoordinationError: it was started, or closed, already.
        """
        if self._thread is not None or self._closing.is_set():
            raise CoordinationError(f"{self!r} was started already; make another object")
        self._directory.desk()
        self._thread = threading.Thread(
            target=self._run, name=f"shoal-leads-{self.name}", daemon=True
        )
        self._thread.start()

    def close(self, timeout: float | None = None) -> bool:
        """Tells the function to stop, waits for it, and leaves the line. Idempotent.

        Leadership is given up only when the function has returned.

        Args:
            timeout: Seconds to wait for the function; None: for as long as it takes.

        Returns:
            Whether it has returned.
        """
        self._closing.set()
        with self._lock:
            if self._term is not None:
                self._term.over.set()
            contention = self._contention
            if contention is not None and self._term is None:
                contention.leave()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return thread is None
        thread.join(timeout)
        if thread.is_alive():
            logger.warning("%r: its function has not returned within %s s", self, timeout)
        return not thread.is_alive()

    def after_fork(self) -> None:
        """In a forked child: the parent leads, or stands in line."""
        if self._term is not None:
            # A new one: a thread that the child doesn't have may hold the old one's lock.
            self._term.over = threading.Event()
            self._term.over.set()
        self._begin_process()
        self._closing.set()

    def _begin_process(self) -> None:
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = None
        self._contention = None
        self._term = None

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                worked = self._one_term()
            except DirectoryClosedError as error:
                logger.info("nobody leads %r here any more: %s", self.name, error)
                return
            except ShoalError as error:
                if self._closing.is_set():
                    return
                logger.warning("leadership of %r can't be stood for: %s", self.name, error)
                worked = False
            except Exception:
                # Here nobody would hear of it, and nobody would stand any more.
                logger.exception("leadership of %r: a candidacy failed", self.name)
                worked = False
            failures = 0 if worked else failures + 1
            longest = min(AGAIN_LAST, AGAIN_FIRST * 2.0 ** min(failures, 10))
            self._closing.wait(longest * self._rng.uniform(0.5, 1.5))

    def _one_term(self) -> bool:
        """From candidacy to the function's return; whether that was without an error."""
        desk = self._directory.desk()
        with self._lock:
            if self._closing.is_set():
                return True
            contention = self._contention = Contention(
                desk, f"{desk.chroot}{self._path}", self._who.encode(), lost=self._told
            )
        try:
            tenure = contention.outcome.result()
            return self._serve(Term(self.name, tenure))
        finally:
            with self._lock:
                self._contention = self._term = None
            # While ZooKeeper is away the node can't go, and waiting for it would help nobody.
            patience = GOODBYE if self._directory.connected else 0.0
            try:
                contention.leave().result(patience)
            except TimeoutError:
                logger.warning(
                    "leadership of %r: its node goes when ZooKeeper is back, or with the session "
                    "(ZooKeeper is %s)",
                    self.name,
                    self._directory.describe(),
                )

    def _serve(self, term: Term) -> bool:
        with self._lock:
            self._term = term
            if self._closing.is_set() or not term.leads:
                return True
        began = time.monotonic()
        logger.info("leads %r, fence %d", self.name, term.fence)
        try:
            self._lead(term)
        except LockLostError as error:
            logger.info("leadership of %r ended: %s", self.name, error)
        except Exception:
            logger.exception("what leads %r failed; it stands again", self.name)
            return False
        finally:
            logger.info("led %r for %.1f s", self.name, time.monotonic() - began)
        return True

    def _told(self, reason: str) -> None:
        # On the desk's thread.
        logger.warning("leadership of %r is lost: %s", self.name, reason)
        with self._lock:
            if self._term is not None:
                self._term.over.set()
