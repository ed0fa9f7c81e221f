"""Reports of calls, as many at once as have come together while the last ones were under way."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from shoal_gateway import jobtraces
from shoal_gateway.appmanager import telling
from shoal_gateway.appmanager.calls import Call
from shoal_gateway.appmanager.ledger import Ledger
from shoal_gateway.appmanager.ports import (
    MANY,
    Ended,
    Held,
    Registry,
    RegistryAwayError,
    Result,
)

logger = logging.getLogger(__name__)

# Seconds between tries to report to a registry that is away.
AGAIN = 0.5
# Seconds between two reports while calls end all the time: a transaction for each would cost more
# than the calls. The first after a pause goes out at once.
PACE = 0.02


class Reporter:
    """Says how calls ended until the registry has heard it.

    Args:
        registry: That is told.
        ledger: Where accepted results are noted, the host's own word.
        done: Told of each call that nothing more is to be done for.
    """

    def __init__(self, registry: Registry, ledger: Ledger, done: Callable[[Call], None]) -> None:
        self._registry = registry
        self._ledger = ledger
        self._done = done
        self._waiting: deque[tuple[Call, Result]] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()

    def put(self, call: Call, result: Result) -> None:
        """A call has ended."""
        with self._changed:
            self._waiting.append((call, result))
            self._changed.notify()

    def close(self) -> None:
        """What can't be reported now is left to the leases; `run` returns soon."""
        self._closing.set()
        with self._changed:
            self._changed.notify()

    def run(self) -> None:
        """Reports until closed, and then what is left, once."""
        after = 0.0
        while True:
            with self._changed:
                while not self._waiting and not self._closing.is_set():
                    self._changed.wait()
            self._closing.wait(max(0.0, after + PACE - time.monotonic()))
            after = time.monotonic()
            with self._changed:
                batch = [self._waiting.popleft() for _ in range(min(MANY, len(self._waiting)))]
            if not batch:
                return
            try:
                self._report(batch)
            except RegistryAwayError as error:
                logger.warning("%d calls are not reported yet: %s", len(batch), error)
                if self._closing.is_set():
                    return
                with self._changed:
                    self._waiting.extendleft(reversed(batch))
                self._closing.wait(AGAIN)

    def _report(self, batch: Sequence[tuple[Call, Result]]) -> None:
        # One call's report is in its trace; that of several would be in the first one's.
        with jobtraces.within(batch[0][0].span if len(batch) == 1 else jobtraces.NONE):
            refusals = self._registry.report_many([result for _, result in batch])
        accepted, refused = [], []
        for (call, result), refusal in zip(batch, refusals, strict=True):
            if refusal is None:
                accepted.append((call, result))
            else:
                refused.append((call, result, refusal))
        self._ledger.write(
            {**call.who, "event": "published"}
            for call, result in accepted
            if result.ended is Ended.SUCCEEDED
        )
        for call, result in accepted:
            telling.reported(call.span, call.who, result)
            self._done(call)
        if refused:
            self._look_into(refused)

    def _look_into(self, refused: Sequence[tuple[Call, Result, str]]) -> None:
        """The end of a call and its owner's wish for it may have crossed; that moves the fence."""
        try:
            verdicts = self._registry.renew([call.lease for call, _, _ in refused])
        except RegistryAwayError as error:
            logger.warning("%d refused reports are let go: %s", len(refused), error)
            verdicts = [(Held.LOST, 0)] * len(refused)
        for (call, result, refusal), (held, fence) in zip(refused, verdicts, strict=True):
            if held is Held.CANCEL and result.ended is not Ended.CANCELLED:
                call.cancelled, call.fence = True, fence
                said = Result(call.lease, result.attempt, Ended.CANCELLED, "ended on request")
                self.put(call, said)
                continue
            logger.warning("the report of %r (%s) was refused: %s", call, result.ended, refusal)
            telling.reported(call.span, call.who, result, refusal)
            self._done(call)
