"""Who calls, by the token that they bring, and what they may do.

The registry is asked about a token once in `TTL` seconds, and its answer remembered between. So a
revoked token works for that long at most; and a registry that is away is felt as soon.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from shoal_gateway import tokens
from shoal_gateway.errors import (
    DeniedError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from shoal_gateway.tokens import SCOPE_NAMES, Token
from shoal_protos.gateway.model.v1 import account_pb2, job_pb2

T = TypeVar("T")

READ = account_pb2.SCOPE_JOBS_READ
WRITE = account_pb2.SCOPE_JOBS_WRITE
ADMIN = account_pb2.SCOPE_ADMIN

# Seconds for which an answer about a token holds: how long a revocation may take to be felt.
TTL = 5.0
# Tokens that are remembered; the one that was used least recently is forgotten first.
MOST = 10_000

HOW = "send one as `authorization: Bearer shoal_…` (`shoal` takes it from SHOAL_TOKEN)"

Ask = Callable[[Token], Awaitable[account_pb2.Token]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        user: Their name; empty where nobody has to say it.
        scopes: What their token is good for.
        token: The token, without its secret; None where there is none.
    """

    user: str
    scopes: frozenset[int]
    token: account_pb2.Token | None = None

    @property
    def admin(self) -> bool:
        """Whether all jobs are theirs to see, and users and tokens theirs to change."""
        return ADMIN in self.scopes

    def may(self, scope: int) -> bool:
        """Whether their token is good for something."""
        return scope in self.scopes or self.admin

    def sees(self, job: job_pb2.Job | job_pb2.Event) -> bool:
        """Whether a job is theirs to see."""
        return self.admin or job.account == self.user

    def own(self, job: job_pb2.Job) -> job_pb2.Job:
        """A job that is theirs to see.

        Raises:
            NotFoundError: it is not. That it exists is nobody else's business.
        """
        if not self.sees(job):
            raise NotFoundError(f"there is no job {job.id}")
        return job


# Where nobody has to say who they are, everybody may do everything.
ANYBODY = Caller("", frozenset({READ, WRITE, ADMIN}))


class Callers:
    """Finds out who calls.

    Args:
        ask: Asks the registry whose token it is; None: the gateway is open to everybody.
        now: Monotonic seconds.
    """

    def __init__(
        self, ask: Ask | None = None, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._now = now
        self._known: OrderedDict[Token, tuple[Caller, float]] = OrderedDict()
        self._asking: dict[Token, asyncio.Task[Caller]] = {}

    @property
    def required(self) -> bool:
        """Whether callers have to say who they are."""
        return self._ask is not None

    async def of(self, context: Any, scope: int | None = None) -> Caller:
        """Who calls.

        Args:
            context: Of the call.
            scope: What their token must be good for; None: anything.

        Raises:
            UnauthenticatedError: there is no token, or it is not good.
            DeniedError: it is not good for that.
            UnavailableError: the registry can't be asked.
        """
        if self._ask is None:
            return ANYBODY
        caller = await self._remembered(_token_in(context))
        if scope is not None and not caller.may(scope):
            raise DeniedError(
                f"the token is not good for {SCOPE_NAMES[scope]}, which this call needs; it is for"
                f" {', '.join(SCOPE_NAMES[each] for each in sorted(caller.scopes))}"
            )
        return caller

    async def watched(
        self, stream: AsyncGenerator[T, None], context: Any, scope: int
    ) -> AsyncGenerator[T, None]:
        """A stream for as long as its caller may have it: a token may be revoked meanwhile.

        What is not sent needs no permission, so a stream is looked at when it has something to say.
        """
        async with aclosing(stream):
            async for each in stream:
                await self.of(context, scope)
                yield each

    async def _remembered(self, token: Token) -> Caller:
        known = self._known.get(token)
        if known is not None and self._now() < known[1]:
            self._known.move_to_end(token)
            return known[0]
        asking = self._asking.get(token)
        if asking is None:
            # Those who come with the same token at the same time ask once.
            asking = asyncio.create_task(self._learn(token), name="whose token")
            self._asking[token] = asking
            asking.add_done_callback(lambda _: self._asking.pop(token, None))
        # One who goes away takes the answer from nobody.
        return await asyncio.shield(asking)

    async def _learn(self, token: Token) -> Caller:
        assert self._ask is not None  # noqa: S101 - nobody is asked in an open gateway
        self._known.pop(token, None)
        asked = self._now()
        try:
            found = await self._ask(token)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise UnavailableError(
                    "the registry does not know users yet; upgrade all its replicas"
                ) from error
            raise
        caller = Caller(found.user, frozenset(found.scopes), found)
        self._known[token] = (caller, asked + TTL)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return caller


def _token_in(context: Any) -> Token:
    values = [
        value
        for key, value in context.invocation_metadata() or ()
        if key == tokens.METADATA_KEY and isinstance(value, str)
    ]
    if not values:
        raise UnauthenticatedError(f"this gateway asks for a token: {HOW}")
    # The same token, whichever of its texts was sent: what is remembered holds no secret.
    found = tokens.bearer(values[0]) if len(values) == 1 else None
    if found is None:
        raise UnauthenticatedError(f"the token can't be read: {HOW}")
    return Token(found.id, found.digest)
