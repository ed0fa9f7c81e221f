"""SIGTERM and SIGINT while a server runs, and what was there before afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


def on_main_thread() -> bool:
    """Whether this is the thread that Python lets handle signals."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Both signals go to ``handler`` meanwhile, if this is the main thread."""
    if not on_main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, former in before.items():
            # None: it was not installed from Python, and can't be put back from there.
            signal.signal(number, signal.SIG_DFL if former is None else former)
