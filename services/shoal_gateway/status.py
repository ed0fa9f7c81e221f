"""How the gateway's errors look on the wire: the one place where they become status codes."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import grpc
import grpc.aio

from shoal.malformed import MalformedRequestError
from shoal_gateway.errors import (
    AlreadyExistsError,
    DataLossError,
    DeniedError,
    GatewayError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    QuotaError,
    UnauthenticatedError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

Servicer = TypeVar("Servicer", bound=type)

CODES: dict[type[GatewayError], grpc.StatusCode] = {
    InvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    DeniedError: grpc.StatusCode.PERMISSION_DENIED,
    QuotaError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DataLossError: grpc.StatusCode.DATA_LOSS,
}

# What another service of the gateway answered and our own caller should hear as it was said.
PASSED_ON = frozenset(
    {
        *CODES.values(),
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)


def status_of(error: GatewayError | grpc.RpcError) -> tuple[grpc.StatusCode, str] | None:
    """Code and details for an error; None for one that its handler should not have let through."""
    if isinstance(error, GatewayError):
        for kind in type(error).__mro__:
            code = CODES.get(kind)
            if code is not None:
                return code, str(error)
        return None
    # Both a finished grpc.Call and grpc.aio's error have these.
    code = getattr(error, "code", lambda: None)()
    details = getattr(error, "details", lambda: "")()
    return (code, details or code.name) if code in PASSED_ON else None


def speaks_status(servicer: Servicer) -> Servicer:
    """Class decorator: a servicer's calls answer our errors with their status code.

    Handlers may be of any kind: functions, generators, coroutines and asynchronous generators. What
    another service answered passes through with its code; anything else is a defect: it is logged
    under a number, and callers get INTERNAL and that number.
    """
    contract = [base for base in servicer.__mro__[1:] if base is not object]
    for name, member in list(vars(servicer).items()):
        # The contract's methods are those that the generated base has too.
        if inspect.isfunction(member) and any(name in vars(base) for base in contract):
            setattr(servicer, name, _speaking(member))
    return servicer


def _speaking(method: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(method):
        return _async_stream(method)
    if inspect.iscoroutinefunction(method):
        return _async_unary(method)
    if inspect.isgeneratorfunction(method):
        return _stream(method)
    return _unary(method)


def _unary(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def answer(self: Any, request: Any, context: Any) -> Any:
        try:
            return method(self, request, context)
        except MalformedRequestError:
            raise
        except Exception as error:
            if _ended(context):
                raise  # the method has ended its call itself
            status = _answer_to(error, method)
        return context.abort(*status)  # which raises

    return answer


def _stream(method: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    @functools.wraps(method)
    def answer(self: Any, request: Any, context: Any) -> Iterator[Any]:
        try:
            yield from method(self, request, context)
        except MalformedRequestError:
            raise
        except Exception as error:
            if _ended(context):
                raise  # the method has ended its call itself
            status = _answer_to(error, method)
        else:
            return
        context.abort(*status)

    return answer


def _async_unary(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def answer(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request, context)
        except (MalformedRequestError, grpc.aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 - said, or logged, by what it is
            status = _answer_to(error, method)
        return await context.abort(*status)  # which raises

    return answer


def _async_stream(method: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def answer(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            # A caller that goes away ends the handler here and now, not when it is collected.
            async with contextlib.aclosing(method(self, request, context)) as responses:
                async for response in responses:
                    yield response
        except (MalformedRequestError, grpc.aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 - said, or logged, by what it is
            status = _answer_to(error, method)
        else:
            return
        await context.abort(*status)

    return answer


def _ended(context: Any) -> bool:
    code = getattr(context, "code", None)
    return code is not None and code() is not None


def _answer_to(error: Exception, method: Callable[..., Any]) -> tuple[grpc.StatusCode, str]:
    """What is said to the caller.

    A defect of ours is told in the log, and callers get its number only: its words may be of paths,
    tables, or somebody else's job.
    """
    known = isinstance(error, GatewayError | grpc.RpcError)
    status = status_of(error) if known else None  # type: ignore[arg-type] # it is one of them
    if status is not None:
        return status
    incident = secrets.token_hex(4)
    logger.error("incident %s: %s failed", incident, method.__qualname__, exc_info=error)
    return grpc.StatusCode.INTERNAL, (
        f"something is wrong in the gateway; its log tells more under incident {incident}"
    )
