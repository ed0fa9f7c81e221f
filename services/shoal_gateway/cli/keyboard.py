"""Single keys from a terminal, without Enter; the terminal is as before afterwards."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any, Self


class Keyboard:
    """Keys as they are pressed, as a context; none where standard input is no terminal.

    Ctrl-C stays an interrupt.
    """

    def __init__(self) -> None:
        self._file = sys.stdin.fileno() if _terminal() else None
        self._before: list[Any] | None = None
        # What wakes a wait from another thread.
        self._wakened, self._waking = os.pipe()
        os.set_blocking(self._wakened, False)
        os.set_blocking(self._waking, False)

    def __enter__(self) -> Self:
        if self._file is not None:
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None and self._before is not None:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)
        os.close(self._wakened)
        os.close(self._waking)

    def wake(self) -> None:
        """Ends the wait that is under way, or the next; from any thread, once the context began."""
        try:
            os.write(self._waking, b"!")
        except OSError:
            return  # full: it will wake; or closed: nobody waits any more

    def wait(self, timeout: float) -> str:
        """What was pressed within ``timeout`` seconds; empty if nothing, or `wake` was called."""
        watched = [self._wakened] + ([self._file] if self._file is not None else [])
        ready, _, _ = select.select(watched, [], [], max(timeout, 0.0))
        if self._wakened in ready:
            os.read(self._wakened, 4096)
        if self._file is None or self._file not in ready:
            return ""
        pressed = os.read(self._file, 64)
        if not pressed:
            # The terminal is gone: there is nothing more to be had from it.
            self._file = None
        return pressed.decode("utf-8", "ignore")


def _terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except ValueError:  # closed
        return False
