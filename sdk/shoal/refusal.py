"""Refusals: a server turns a call away before its handler did anything.

A refused call is safe to send to another replica whatever its method does, and the caller's channel
does so. The refusal says it in its trailing metadata, for a status code alone does not prove that
nothing happened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NoReturn

import grpc
import grpc.aio

# Trailing metadata of a refusal; its value is the reason in one word.
REFUSED_KEY = "shoal-refused"
# gRFC A6: milliseconds to wait before the next attempt; negative forbids one.
PUSHBACK_KEY = "grpc-retry-pushback-ms"

DRAINING = "draining"
OVERLOADED = "overloaded"
FULL = "full"

Metadata = Iterable[tuple[str, str | bytes]]
Trailers = tuple[tuple[str, str | bytes], ...]


def trailers(reason: str, pushback: float | None = None) -> tuple[tuple[str, str], ...]:
    """Trailing metadata of a refusal."""
    found: tuple[tuple[str, str], ...] = ((REFUSED_KEY, reason),)
    if pushback is not None:
        found += ((PUSHBACK_KEY, str(math.ceil(pushback * 1000.0))),)
    return found


def refuse(
    context: grpc.ServicerContext,
    message: str,
    *,
    reason: str = FULL,
    code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED,
    pushback: float | None = None,
    also: Trailers = (),
) -> NoReturn:
    """Ends a call that nothing was done for, so that the caller may try another replica.

    Call it before the handler has changed anything.

    Args:
        context: The handler's context.
        message: For a person: what is full, since when, and what else to do.
        reason: One word for programs.
        code: The status that a caller sees when every replica refuses.
        pushback: Seconds that the caller should wait before it asks this replica again; negative
            forbids any further attempt.
        also: More trailing metadata.

    Raises:
        Exception: always; grpc's way of ending a handler.
    """
    context.set_trailing_metadata((*trailers(reason, pushback), *also))
    context.abort(code, message)


async def refuse_aio(
    context: grpc.aio.ServicerContext[Any, Any],
    message: str,
    *,
    reason: str = FULL,
    code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED,
    pushback: float | None = None,
    also: Trailers = (),
) -> NoReturn:
    """Ends a call of an asyncio handler as `refuse` does; to be awaited.

    Arguments and what it raises are those of `refuse`.
    """
    await context.abort(code, message, (*trailers(reason, pushback), *also))
    raise AssertionError("abort returned")


def refusal_in(metadata: Metadata | None) -> str | None:
    """The reason of a refusal in trailing metadata, None when there is none."""
    return _value(metadata, REFUSED_KEY)


def pushback_in(metadata: Metadata | None) -> float | None:
    """Seconds of pushback in trailing metadata; infinity forbids a retry; None when unsaid.

    An unreadable value forbids a retry, as gRFC A6 has it.
    """
    value = _value(metadata, PUSHBACK_KEY)
    if value is None:
        return None
    try:
        milliseconds = int(value)
    except ValueError:
        return math.inf
    return milliseconds / 1000.0 if milliseconds >= 0 else math.inf


def _value(metadata: Metadata | None, wanted: str) -> str | None:
    for key, value in metadata or ():
        if key == wanted:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return None
