"""The calls that a pool has, each from when it is taken until it is reported."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from shoal_gateway.appmanager.calls import Call
from shoal_gateway.appmanager.offers import Answer, Offer
from shoal_gateway.appmanager.prefetch import Prefetch

# Seconds that a slot is kept for a command that found none: longer than a scheduler waits until it
# offers the command again.
KEPT = 1.5


class Table:
    """Says what may be taken, and who is next. Safe for several threads.

    Args:
        slots: Calls at once.
        commands: How many slots commands take now.
        ledger: Where calls are noted.
    """

    def __init__(self, slots: int, commands: Callable[[], int], ledger: Path) -> None:
        self._slots = slots
        self._commands = commands
        self._ledger = ledger
        self._lock = threading.RLock()
        # All until they are reported, and of those what has not ended: it takes a place.
        self._calls: dict[str, Call] = {}
        self._open: set[str] = set()
        self._queue: deque[Call] = deque()
        self._prefetch = Prefetch()
        self._kept_until = 0.0
        self._shut = False

    def __repr__(self) -> str:
        return f"<Table {len(self._queue)} waiting, {len(self._open)} open>"

    @property
    def busy(self) -> int:
        """Calls that run or wait."""
        return len(self._open)

    @property
    def slots(self) -> int:
        """How many calls may run now."""
        return self._slots - self._commands()

    def shut(self) -> None:
        """Takes nothing any more."""
        self._shut = True

    def held(self) -> list[Call]:
        """Calls that were begun and are not reported."""
        with self._lock:
            return [call for call in self._calls.values() if call.fence]

    def waiting(self) -> list[Call]:
        """Calls that wait for a worker."""
        with self._lock:
            return list(self._queue)

    def room(self, offer: Offer) -> bool:
        """Whether an offer may be taken now."""
        if self._shut:
            return False
        now = time.monotonic()
        with self._lock:
            slots = self.slots
            free = slots - len(self._open)
            if now < self._kept_until:
                return free > 1
            return free > 0 or self._prefetch.room(offer.kind, slots, now)

    def make_room(self) -> None:
        """A command found no slot: no more calls wait, and the next free slot is kept for it.

        Else calls that wait would take every slot before a command could, for as long as there
        are enough of them.
        """
        if self._open:
            self._kept_until = time.monotonic() + KEPT

    def made_room(self) -> None:
        """A command has found its slot."""
        self._kept_until = 0.0

    def take(self, offers: Sequence[tuple[Offer, Path]]) -> tuple[list[Call], list[Answer]]:
        """Makes calls of what there is room for, and answers for the others."""
        taken, full = [], []
        with self._lock:
            for offer, application in offers:
                if not self.room(offer):
                    said = f"all {self._slots} workers have enough to do"
                    full.append(Answer(offer.job_id, "full", said))
                    continue
                call = Call(offer, application, self._ledger)
                self._calls[call.runner_id] = call
                self._open.add(call.runner_id)
                self._prefetch.add(call.runner_id, offer.kind)
                taken.append(call)
        return taken, full

    def enqueue(self, calls: Iterable[Call]) -> None:
        """They are begun, and wait for a worker."""
        with self._lock:
            self._queue.extend(calls)

    def next(self) -> Call | None:
        """The call that waits longest; it waits no longer."""
        with self._lock:
            return self._queue.popleft() if self._queue else None

    def withdraw(self, call: Call) -> bool:
        """Takes a call out of those that wait; whether it was still there."""
        with self._lock:
            try:
                self._queue.remove(call)
            except ValueError:
                return False
            return True

    def called(self, call: Call, now: float) -> None:
        """A worker has it."""
        with self._lock:
            self._prefetch.called(call.runner_id, call.offer.kind, now)

    def returned(self, call: Call, seconds: float) -> None:
        """It came back after so long."""
        with self._lock:
            self._prefetch.ended(call.offer.kind, seconds)

    def close(self, call: Call) -> None:
        """It has ended, and takes no place any more."""
        call.ended = True
        with self._lock:
            self._prefetch.remove(call.runner_id)
            self._open.discard(call.runner_id)

    def reported(self, call: Call) -> None:
        """Nothing is to be done for it any more."""
        with self._lock:
            self._calls.pop(call.runner_id, None)

    def forget(self, call: Call) -> None:
        """It was never begun."""
        with self._lock:
            self.close(call)
            self.reported(call)
