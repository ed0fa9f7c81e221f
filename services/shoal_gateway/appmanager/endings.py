"""How calls end: what is reported of them, and what of theirs is stored."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Any

from shoal_gateway.appmanager import supervisor, survivors
from shoal_gateway.appmanager.calls import Call
from shoal_gateway.appmanager.ports import Ended, Result
from shoal_gateway.appmanager.shipping import MissingOutputError, fetch_inputs, ship_outputs
from shoal_gateway.objectstore import ObjectStore, ObjectStoreError, Stored

logger = logging.getLogger(__name__)

# Why a worker is killed under its call.
CANCELLED = "ended on request"
LOST = "its job is somebody else's"
# Seconds between tries to reach a store that is away.
AGAIN = 0.5


def line(pid: int, code: int, cause: str) -> dict[str, Any]:
    """A ledger's line for the end of a call."""
    return {"event": "end", "pid": pid, "exit_code": code, "cause": cause}


def of_code(
    call: Call, code: int, reason: str, files: tuple[tuple[str, Stored], ...] = ()
) -> Result:
    """What is reported of a function that came back."""
    if code or reason:
        return Result(call.lease, call.offer.attempt, Ended.FAILED, reason, code)
    return Result(call.lease, call.offer.attempt, Ended.SUCCEEDED, "", 0, files)


def of_death(call: Call, doomed: str, code: int) -> tuple[str, Result | None]:
    """What is noted and reported of a call whose worker died.

    Args:
        call: That it was busy with.
        doomed: Why it was killed here; empty when nobody here killed it.
        code: Its exit code, or minus the signal.
    """
    number = call.offer.attempt
    if call.cancelled:
        return supervisor.KILLED, Result(call.lease, number, Ended.CANCELLED, CANCELLED)
    if call.lost:
        return supervisor.KILLED, None
    if doomed == supervisor.WALL_LIMIT:
        said = f"ran longer than its limit of {call.offer.wall_seconds:g} s"
        return supervisor.WALL_LIMIT, Result(call.lease, number, Ended.FAILED, said, code)
    if doomed:
        return supervisor.KILLED, given_back(call, doomed)
    how = f"of {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    said = f"its worker process died {how}"
    lost = Result(call.lease, number, Ended.SUPERVISOR_LOST, said)
    return supervisor.SUPERVISOR_LOST, lost


def unmade(call: Call) -> Result | None:
    """What is reported of a call that is not wanted any more and was never made."""
    if call.cancelled:
        return Result(call.lease, call.offer.attempt, Ended.CANCELLED, CANCELLED)
    return None


def given_back(call: Call, why: str) -> Result:
    """What is reported of a call that another manager is to make."""
    return Result(call.lease, call.offer.attempt, Ended.ABANDONED, why)


def fault(error: BaseException) -> str:
    """What users are told of a host's error. Its paths and drivers are in its log only."""
    if isinstance(error, ObjectStoreError) and error.__cause__ is None:
        return str(error)  # our own words, of the object
    if isinstance(error, ObjectStoreError):
        return "the object store failed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if type(error) is OSError else f"its host failed ({type(error).__name__})"


def must_end(call: Call, now: float) -> str:
    """Why a running call's worker is to be killed; empty when it is not."""
    if call.cancelled:
        return CANCELLED
    if call.lost:
        return LOST
    return supervisor.WALL_LIMIT if call.overran(now) else ""


class Files:
    """Brings inputs to a worker's directory, and outputs and logs away from it.

    Args:
        objects: Where they come from and go.
        stopped: Set when the manager waits no longer for a store that is away.
    """

    def __init__(self, objects: ObjectStore, stopped: threading.Event) -> None:
        self._objects = objects
        self._stopped = stopped

    def fetched(self, call: Call, directory: Path, uid: int = 0) -> str:
        """Puts a call's inputs in place; why that could not be done, else empty."""
        try:
            fetch_inputs(call.offer.inputs, directory / "work", self._objects, uid)
        except (OSError, ObjectStoreError) as error:
            logger.warning("inputs of %r can't be fetched: %s", call, error)
            return fault(error)
        return ""

    def stored(
        self, call: Call, directory: Path, code: int, reason: str, uid: int = 0
    ) -> Result | None:
        """Stores the logs and outputs of a call that came back; what is to be reported.

        None when somebody else has the job. It waits for a store that is away.
        """
        number = call.offer.attempt
        while True:
            try:
                self._last_logs(call, directory)
                if call.cancelled:
                    return Result(call.lease, number, Ended.CANCELLED, CANCELLED)
                if code or reason:
                    return of_code(call, code, reason)
                files = ship_outputs(call.attempt(directory, uid), self._objects)
                return of_code(call, code, reason, files)
            except MissingOutputError as error:
                return Result(call.lease, number, Ended.FAILED, str(error), code)
            except ObjectStoreError as error:
                logger.warning("%r can't be stored yet: %s", call, error)
                if call.lost or self._stopped.wait(AGAIN):
                    return None

    def logs_so_far(self, call: Call, directory: Path) -> None:
        """Stores what a running call has written; a failure is tried again with the next look."""
        try:
            call.ship_logs(directory, self._objects, last=False)
        except (OSError, ObjectStoreError) as error:
            logger.warning("logs of %r are not stored yet: %s", call, error)

    def last_logs(self, call: Call, directory: Path) -> None:
        """Stores what a call wrote before its worker died, and ends what it had started."""
        supervisor.send(survivors.marked(call.runner_id), signal.SIGKILL)
        # Only then is it reported, lest the next attempt runs beside what is left of it.
        survivors.await_end(call.runner_id)
        try:
            self._last_logs(call, directory)
        except ObjectStoreError as error:
            logger.warning("logs of %r are not stored: %s", call, error)

    def _last_logs(self, call: Call, directory: Path) -> None:
        try:
            call.ship_logs(directory, self._objects, last=True)
        except OSError as error:
            # A function can forbid the reading of its own output; its end counts all the same.
            logger.warning("logs of %r can't be read: %s", call, error)
