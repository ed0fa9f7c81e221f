"""Scripts awaited by blocking and by asyncio code, and the errors that both end with."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TypeVar

from kazoo.exceptions import KazooException

from shoal.directory import Directory
from shoal.errors import CoordinationError, CoordinationTimeoutError
from shoal.recipes.contention import AGAIN_FIRST, AGAIN_LAST, PASSING
from shoal.recipes.desk import Desk
from shoal.recipes.steps import Script

logger = logging.getLogger(__name__)

T = TypeVar("T")

_rng = random.Random()  # noqa: S311 - it spreads load, it keeps no secret


def patient(desk: Desk, what: str, attempt: Callable[[], Script[T]]) -> Script[T]:
    """A script that is begun again, from its first look, after whatever passes by itself.

    Args:
        desk: Of the process.
        what: Is awaited, for the error.
        attempt: Makes the script; it must be such that a second beginning does no harm.
    """
    tries = 0
    while True:
        yield from desk.until_connected()
        try:
            return (yield from attempt())
        except PASSING as error:
            tries += 1
            logger.debug("%s: looking again after %r", what, error)
            yield pause(tries)
        except KazooException as error:
            raise CoordinationError(
                f"{what}: ZooKeeper says {error!r}; may this process read and create nodes there?"
            ) from error


def pause(tries: int) -> float:
    """Before the next try: doubled, with jitter, seconds."""
    return min(AGAIN_LAST, AGAIN_FIRST * 2.0 ** min(tries, 10)) * _rng.uniform(0.5, 1.5)


def wait(
    directory: Directory, what: str, script: Callable[[Desk], Script[T]], timeout: float | None
) -> T:
    """Carries a script on and waits for its end; whatever ends the wait ends the script.

    Args:
        directory: Whose session.
        what: Is awaited, for the error.
        script: Makes it.
        timeout: Seconds; None: for as long as it takes.

    Raises:
        CoordinationTimeoutError: it took longer.
        CoordinationError: ZooKeeper refuses it, or this is the directory's own thread.
        DirectoryClosedError: the directory was closed.
    """
    desk = directory.desk()
    if desk.worker.inside:
        raise CoordinationError(f"{what} can't be awaited on the directory's own thread")
    steps = desk.run(script(desk))
    try:
        return steps.outcome.result(timeout)
    except TimeoutError as error:
        desk.worker.call_soon(steps.stop)
        raise _late(directory, what, timeout) from error
    except CancelledError as error:
        raise CoordinationError(f"{what}: the wait was given up") from error
    except BaseException:
        desk.worker.call_soon(steps.stop)
        raise


async def wait_aio(
    directory: Directory,
    what: str,
    script: Callable[[Desk], Script[T]],
    timeout: float | None,  # noqa: ASYNC109 - as `wait` has it
) -> T:
    """The same, awaited; a task that is cancelled ends the script."""
    desk = directory.desk()
    steps = desk.run(script(desk))
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.shield(asyncio.wrap_future(steps.outcome))
    except TimeoutError as error:
        desk.worker.call_soon(steps.stop)
        raise _late(directory, what, timeout) from error
    except BaseException:
        desk.worker.call_soon(steps.stop)
        raise


def _late(directory: Directory, what: str, timeout: float | None) -> CoordinationTimeoutError:
    return CoordinationTimeoutError(
        f"{what} took longer than {timeout or 0.0:g} s; ZooKeeper is {directory.describe()}"
    )
