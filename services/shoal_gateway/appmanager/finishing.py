"""What comes after a command's end: outputs and logs are stored, and the registry is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from shoal_gateway import jobtraces
from shoal_gateway.appmanager import supervisor, survivors, telling
from shoal_gateway.appmanager.ports import Ended, Held, Registry, RegistryAwayError, Result
from shoal_gateway.appmanager.runner import Runner
from shoal_gateway.appmanager.shipping import MissingOutputError, ship_outputs
from shoal_gateway.objectstore import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

# Why nothing is reported.
LOST = "its job is somebody else's"

# Between tries to report to a registry that is away, or to upload to a store that is, seconds.
AGAIN = 0.5


class Finisher:
    """Sees ended runners through to their report, on a few threads.

    Args:
        registry: Who is told.
        objects: Where outputs and logs go.
        threads: Runners at once.
        stopped: Set when the manager leaves; what is not reported then is its successor's.
        done: Called with a runner of which nothing is left to do.
    """

    def __init__(
        self,
        registry: Registry,
        objects: ObjectStore,
        *,
        threads: int,
        stopped: threading.Event,
        done: Callable[[Runner], None],
    ) -> None:
        self._registry = registry
        self._objects = objects
        self._stopped = stopped
        self._done = done
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="finish")

    def finish(self, runner: Runner, abandoned: str = "") -> None:
        """Begins to see to a runner.

        Args:
            runner: Its supervisor has ended or never started.
            abandoned: Why the host gives it back whatever it did; empty when it does not.
        """
        self._threads.submit(self._finish, runner, abandoned)

    def close(self) -> None:
        """Waits for what is under way; the manager has stopped."""
        self._threads.shutdown(cancel_futures=True)

    def _finish(self, runner: Runner, abandoned: str) -> None:
        """Uploads what is left and reports, for as long as that takes."""
        spec = runner.attempt.spec
        with jobtraces.within(runner.span, spec.job_id, spec.attempt):
            self._finish_in(runner, abandoned)

    def _finish_in(self, runner: Runner, abandoned: str) -> None:
        try:
            end = runner.attempt.exit
            if end is None:
                # Only then is it reported, lest the next attempt runs beside what is left of it.
                survivors.await_end(runner.attempt.spec.runner_id)
                if runner.uid:
                    survivors.end_all(runner.uid)
            if runner.lost and (end is None or end.says_nothing):
                # Somebody else has the job; there is nothing to report.
                runner.ship_logs()
                self._let_go(runner, "lost", LOST)
                return
            result = None
            if abandoned:
                number = runner.attempt.spec.attempt
                result = Result(runner.lease, number, Ended.ABANDONED, abandoned)
            while result is None and not self._stopped.is_set():
                result = self._result(runner)
            if result is not None:
                self._report(runner, result)
        except Exception:
            # In a pool nobody would hear of it; the lease runs out and the job starts elsewhere.
            logger.exception("%r could not be finished", runner.attempt)
            self._let_go(runner, "unfinished", "it could not be finished")

    def _let_go(self, runner: Runner, outcome: str, why: str) -> None:
        telling.let_go(runner.span, runner.attempt.spec.who, outcome, why)
        self._done(runner)

    def _result(self, runner: Runner) -> Result | None:
        """How an attempt ended; None when the store failed and it is to be looked at again."""
        number, end = runner.attempt.spec.attempt, runner.attempt.exit
        if runner.cancelled:
            runner.ship_logs()
            return Result(runner.lease, number, Ended.CANCELLED, "ended on request")
        lease = runner.lease
        if end is None:
            runner.ship_logs()
            return Result(lease, number, Ended.SUPERVISOR_LOST, "its supervisor died")
        if end.says_nothing:
            # Not by this manager: a host that shuts down says it to all, and jobs are not to blame.
            runner.ship_logs()
            return Result(lease, number, Ended.ABANDONED, f"its host ended it: {end.reason}")
        try:
            runner.ship_last_logs()
            if end.exit_code == 0 and not end.reason:
                files = ship_outputs(runner.attempt, self._objects)
                return Result(lease, number, Ended.SUCCEEDED, "", 0, files)
        except MissingOutputError as error:
            return Result(lease, number, Ended.FAILED, str(error), end.exit_code)
        except ObjectStoreError as error:
            logger.warning("%r can't be stored yet: %s", runner.attempt, error)
            self._stopped.wait(AGAIN)
            return None
        return Result(lease, number, Ended.FAILED, end.reason, end.exit_code)

    def _report(self, runner: Runner, result: Result) -> None:
        while not self._stopped.is_set():
            try:
                refused = self._registry.report(result)
            except RegistryAwayError as error:
                logger.warning("%r is not reported yet: %s", runner.attempt, error)
                self._stopped.wait(AGAIN)
                continue
            if refused is None:
                logger.info("%r %s %s", runner.attempt, result.ended.value, result.reason)
                if result.ended is Ended.SUCCEEDED:
                    # The host's own word, so that nobody has to believe the store's.
                    entry = {"event": "published", "fence": result.lease.fence}
                    supervisor.write_ledger(asdict(runner.attempt.spec), entry)
            elif result.ended is not Ended.CANCELLED and self._was_cancelled(runner):
                # Its end and the wish for it crossed; the wish moved the fence.
                result = Result(runner.lease, result.attempt, Ended.CANCELLED, "ended on request")
                continue
            else:
                logger.warning(
                    "the report of %r (%s, %d files) was refused: %s",
                    runner.attempt,
                    result.ended.value,
                    len(result.files),
                    refused,
                )
            telling.reported(runner.span, runner.attempt.spec.who, result, refused)
            self._done(runner)
            return

    def _was_cancelled(self, runner: Runner) -> bool:
        if not runner.cancelled:
            try:
                ((held, fence),) = self._registry.renew([runner.lease])
            except RegistryAwayError:
                return False
            if held is Held.CANCEL:
                runner.cancel(fence)
        return runner.cancelled
