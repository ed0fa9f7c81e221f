"""What is broken when: a seeded schedule, carried out beside the jobs."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from shoal_gateway.experiments.history import History

logger = logging.getLogger(__name__)

# Enters by breaking something and says what; leaves by mending it.
Breakage = Callable[[], AbstractContextManager[str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something to be broken.

    Attributes:
        at: Seconds after the first submit.
        seconds: How long it stays broken.
        breakage: Does it.
    """

    at: float
    seconds: float
    breakage: Breakage


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that was broken.

    Attributes:
        number: In order, from 1.
        what: For a person.
        at: When it broke, seconds after the history's begin.
        until: When it was mended.
    """

    number: int
    what: str
    at: float
    until: float


def spread(rng: random.Random, count: int, seconds: float) -> list[float]:
    """``count`` times between 10 and 90 % of ``seconds``, one in each equal part."""
    width = 0.8 * seconds / max(1, count)
    return [0.1 * seconds + width * (number + rng.random()) for number in range(count)]


class Injector:
    """Carries faults out on a thread of its own, one after the other.

    A fault that is still being mended when the next is due makes that one late; it is not left out.

    Args:
        history: Where they are written down.
        faults: In the order of their times.
    """

    def __init__(self, history: History, faults: Sequence[Fault]) -> None:
        self._history = history
        self._faults = sorted(faults, key=lambda each: each.at)
        self._stopped = threading.Event()
        self.happened: list[Happened] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)

    def start(self) -> None:
        """The clock of the faults begins to run."""
        self._began = time.monotonic()
        self._thread.start()

    def finish(self, timeout: float) -> None:
        """Waits until all is over and mended.

        Raises:
            TimeoutError: it is not.
            Exception: what went wrong in breaking or mending.
        """
        self._thread.join(timeout)
        if self.error is not None:
            raise self.error
        if self._thread.is_alive():
            raise TimeoutError(f"the faults were not over after {timeout:g} s more")

    def stop(self) -> None:
        """No further fault; what is broken is mended."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(120.0)

    def _run(self) -> None:
        try:
            for number, fault in enumerate(self._faults, start=1):
                if self._stopped.wait(max(0.0, self._began + fault.at - time.monotonic())):
                    return
                self._carry_out(number, fault)
        except Exception as error:
            # Told by the run, which fails for it; here nobody would hear.
            logger.exception("a fault could not be carried out")
            self.error = error

    def _carry_out(self, number: int, fault: Fault) -> None:
        note = self._history.note
        with fault.breakage() as what:
            at = note("fault", "injector", number=number, what=what)
            logger.info("fault %d: %s", number, what)
            self._stopped.wait(fault.seconds)
        until = note("recovered", "injector", number=number, what=what)
        began = self._history.began
        self.happened.append(Happened(number, what, at - began, until - began))
