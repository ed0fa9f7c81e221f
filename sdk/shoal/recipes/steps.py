"""Conversations with ZooKeeper written as generators, carried on without a thread of their own.

A script yields what it waits for: an asynchronous result of kazoo's (it gets the value, or the
error), a number of seconds, or a `Bell`. All scripts of a process share one worker thread that
never blocks, so a hundred contenders cost no hundred threads, and blocking and asyncio callers
share one logic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from kazoo.exceptions import OperationTimeoutError

from shoal.session import ANSWER
from shoal.worker import Worker

logger = logging.getLogger(__name__)

T = TypeVar("T")
Script = Generator[Any, Any, T]


class Bell:
    """Something that may happen once, on any thread; a script yields it to wait for it."""

    def __init__(self) -> None:
        self._rung = False
        self._listener: Callable[[], None] | None = None

    def ring(self, *_event: object) -> None:
        """It happens. Fits as a watch of kazoo's."""
        self._rung = True
        # Whichever of ring and heard comes second sees the other; a second wake does nothing.
        listener = self._listener
        if listener is not None:
            listener()

    def heard(self, listener: Callable[[], None]) -> None:
        """Calls ``listener`` when it happens, at once when it has."""
        self._listener = listener
        if self._rung:
            listener()


class Steps(Generic[T]):
    """One script as it is carried on.

    Args:
        worker: On whose thread it runs.
        script: The generator.

    Attributes:
        outcome: What it returns or raises; cancelled when it was stopped.
    """

    def __init__(self, worker: Worker, script: Script[T]) -> None:
        self.outcome: Future[T] = Future()
        self._worker = worker
        self._script = script
        self._step = 0

    def start(self) -> None:
        """Takes the first step."""
        self._worker.call_soon(lambda: self._advance(0, lambda: self._script.send(None)))

    def stop(self) -> None:
        """Ends it where it waits; on the worker's thread only."""
        self._step = -1
        self._script.close()
        self.outcome.cancel()

    def fail(self, error: Exception) -> None:
        """Ends it with an error; on the worker's thread, or before it was started."""
        if not self.outcome.done():
            self._step = -1
            self._script.close()
            self.outcome.set_exception(error)

    def _advance(self, step: int, resume: Callable[[], Any]) -> None:
        if step != self._step:
            return  # It has gone on, or was stopped: this wake comes late.
        self._step += 1
        try:
            awaited = resume()
        except StopIteration as end:
            self._step = -1
            self.outcome.set_result(end.value)
        except Exception as error:  # noqa: BLE001 - it is the outcome; who waits for it raises it
            self._step = -1
            self.outcome.set_exception(error)
        else:
            self._await(awaited, self._step)

    def _await(self, awaited: Any, step: int) -> None:
        def go_on() -> Any:
            return self._script.send(None)

        if isinstance(awaited, int | float):
            self._worker.call_later(awaited, lambda: self._advance(step, go_on))
        elif isinstance(awaited, Bell):
            awaited.heard(lambda: self._worker.call_soon(lambda: self._advance(step, go_on)))
        else:
            self._await_answer(awaited, step)

    def _await_answer(self, result: Any, step: int) -> None:
        def resume() -> Any:
            try:
                value = result.get(block=False)
            except Exception as error:  # noqa: BLE001 - the script's to judge
                return self._script.throw(error)
            return self._script.send(value)

        def give_up() -> Any:
            silence = OperationTimeoutError(f"no answer within {ANSWER:g} s")
            return self._script.throw(silence)

        self._worker.call_later(ANSWER, lambda: self._advance(step, give_up))
        # On kazoo's thread, or in gevent's hub: nothing but handing over there.
        result.rawlink(lambda _result: self._worker.call_soon(lambda: self._advance(step, resume)))
