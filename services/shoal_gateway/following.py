"""How a service follows its document: what a change does to channels, servers and loops."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import shoal.aio
from shoal.admission import Admission
from shoal.retry import Retry
from shoal_balancer import FixedLimit

if TYPE_CHECKING:
    from pydantic import BaseModel

    from shoal.recipes.config import Config, Reading
    from shoal_gateway import tunables

    M = TypeVar("M", bound=BaseModel)

logger = logging.getLogger(__name__)

# The limit of a server that has none: counted, but beyond what a process can hold.
UNLIMITED = FixedLimit(1_000_000_000)


class Tunable(Protocol):
    """A channel, of either kind."""

    retry: Retry | None

    def retune(self, retry: Retry | None) -> None:
        """Other retries from now on."""


def follow(
    directory: shoal.aio.Directory, service: str, options: M, apply: Callable[[M], object]
) -> shoal.aio.Config[M]:
    """Calls ``apply`` with what holds now, and on the event loop with each change.

    Args:
        directory: Where the document is.
        service: Its name.
        options: What the command line says; the document is put over it.
        apply: Takes a value over; it must not block.
    """
    config = shoal.aio.Config(directory, service, type(options), defaults=options)
    # Before anything begins: what was read last time, or the options.
    apply(config.value)
    config.subscribe(lambda reading: apply(reading.value))
    return config


def follow_blocking(
    directory: shoal.Directory, service: str, options: M, apply: Callable[[M], object]
) -> Config[M]:
    """The same on a thread of the directory's, which ``apply`` must not block."""
    from shoal.recipes.config import Config

    def hear(reading: Reading[M]) -> None:
        apply(reading.value)

    config = Config(directory, service, type(options), defaults=options)
    config.subscribe(hear)
    return config


def retune(channel: Tunable, wanted: tunables.Retry, attempt_timeout: float | None = None) -> None:
    """Has a channel, and the budget of its process, retry as a document says.

    Args:
        channel: It retries already.
        wanted: How.
        attempt_timeout: Another one than it has; None: the same.
    """
    before = channel.retry
    if before is None:
        raise ValueError("a channel without retries can't be given some while it is used")
    before.budget.adjust(wanted.budget_ratio, wanted.budget_per_second)
    channel.retune(
        replace(
            before,
            attempts=wanted.attempts,
            refusals=wanted.refusals,
            backoff=wanted.backoff,
            max_backoff=wanted.max_backoff,
            attempt_timeout=attempt_timeout or before.attempt_timeout,
        )
    )


def limit(admission: Admission | None, calls: int | None) -> None:
    """Has a server that was made with a limit let in so many calls at once; None: all."""
    if admission is None:
        raise ValueError("a server that was made without a limit can't be given one")
    wanted = UNLIMITED if calls is None else FixedLimit(calls)
    if admission.limiter != wanted:
        admission.adjust(wanted)
