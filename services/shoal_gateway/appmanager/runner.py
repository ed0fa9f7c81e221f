"""One attempt under this manager: its supervisor's process and its lease."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time

from shoal_gateway.appmanager.apart import Lent
from shoal_gateway.appmanager.attempt import Attempt
from shoal_gateway.appmanager.ports import Lease
from shoal_gateway.appmanager.shipping import LogShipper
from shoal_gateway.objectstore import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)


class Runner:
    """An attempt that was begun here, or adopted.

    Attributes:
        attempt: Its directory.
        logs: Uploads its output.
        fence: Under which it reports.
        handle: A descriptor that becomes readable when the supervisor ends; -1 without one.
        ended: Whether its supervisor has ended, or never started.
        cancelled: Whether it was ended at its owner's wish.
        lost: Whether it was ended here because somebody else has the job.
        since: When it was begun or adopted, monotonic seconds.
        span: In its job's trace; told of when it was reported.
    """

    def __init__(
        self, attempt: Attempt, fence: int, objects: ObjectStore, lent: Lent | None = None
    ) -> None:
        self.attempt = attempt
        self._lent = lent
        self.logs = LogShipper(attempt, objects)
        self.fence = fence
        self.handle = -1
        self.pid = 0
        self.ended = False
        self.cancelled = False
        self.lost = False
        self.since = time.monotonic()
        self.span = attempt.span
        # The renewer ends jobs while others may let the descriptor go; its number is used again.
        self._handling = threading.Lock()

    def __repr__(self) -> str:
        return repr(self.attempt)

    @property
    def lease(self) -> Lease:
        """As the registry knows it."""
        return Lease(self.attempt.spec.job_id, self.attempt.spec.runner_id, self.fence)

    @property
    def uid(self) -> int:
        """The account that is held for it here; 0: none."""
        return 0 if self._lent is None else self._lent.uid

    def start(self) -> None:
        """Starts the supervisor.

        Raises:
            OSError: it could not be started.
        """
        process = self.attempt.start(-1 if self._lent is None else self._lent.descriptor)
        self.pid = process.pid
        self.handle = os.pidfd_open(process.pid)
        # Reaped through the descriptor; Popen must not wait for a number that may be another's.
        process.returncode = 0

    def adopt(self) -> bool:
        """Takes over a supervisor that an earlier manager started; False when it has ended."""
        # A manager that was killed may have started one that has yet to say who it is.
        if not self.attempt.give_up():
            pid = self.attempt.supervisor_pid()
            if pid is not None and self._open(pid):
                return True
        self.ended = True
        return False

    def cancel(self, fence: int) -> None:
        """Ends the job for its owner; its report goes out under a fence of its own."""
        self.fence = fence
        self.cancelled = True
        self._end()

    def disown(self) -> None:
        """Ends the job, which is somebody else's by now; one that ended by itself is reported."""
        self.lost = True
        self._end()

    def note_end(self) -> None:
        """The supervisor has ended."""
        self.ended = True
        # A child of ours would stay a zombie; an adopted one is init's.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.handle, os.WEXITED)

    def ship_logs(self) -> None:
        """Uploads what the job has written; a failure is tried again with the next call."""
        try:
            self.logs.ship()
        except (ObjectStoreError, OSError) as error:
            logger.warning("logs of %r are not stored yet: %s", self.attempt, error)

    def ship_last_logs(self) -> None:
        """Uploads the rest of what the job has written.

        Raises:
            ObjectStoreError: the store failed.
        """
        try:
            self.logs.ship()
        except OSError as error:
            # A job can forbid the reading of its own output; its end counts all the same.
            logger.warning("logs of %r can't be read: %s", self.attempt, error)

    def close(self) -> None:
        """Lets the descriptor and the account go."""
        with self._handling:
            if self.handle >= 0:
                os.close(self.handle)
                self.handle = -1
            if self._lent is not None:
                self._lent.close()

    def _end(self) -> None:
        """Tells the supervisor, which kills everything below it. Said again, it changes nothing.

        One that is still being started is told with the next renewal.
        """
        with self._handling:
            if self.handle >= 0 and not self._over():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.handle, signal.SIGTERM)

    def _open(self, pid: int) -> bool:
        try:
            self.handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        if self.attempt.supervisor_pid() != pid:
            # It ended in between, and its number may be another's; from here on it can't change.
            self.close()
            return False
        self.pid = pid
        return True

    def _over(self) -> bool:
        """Whether the supervisor has ended, noticed or not."""
        look = select.poll()  # select() can't look at a descriptor above 1023
        look.register(self.handle, select.POLLIN)
        return bool(look.poll(0))
