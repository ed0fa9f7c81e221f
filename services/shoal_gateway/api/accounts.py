"""Users and tokens on the wire, for administrators."""

# ruff: noqa: N802, D102, ARG002 - methods are named, documented and called as the contract says

from __future__ import annotations

from typing import Any

import grpc

from shoal_gateway import tokens
from shoal_gateway.api.callers import ADMIN, Caller, Callers
from shoal_gateway.convert import duration
from shoal_gateway.errors import PreconditionError, QuotaError
from shoal_gateway.status import speaks_status
from shoal_gateway.tokens import Token
from shoal_protos.gateway.api.v1 import accounts_pb2, accounts_pb2_grpc
from shoal_protos.gateway.model.v1 import account_pb2
from shoal_protos.gateway.registry.v1 import accounts_pb2 as stored_pb2
from shoal_protos.gateway.registry.v1 import accounts_pb2_grpc as stored_pb2_grpc

# Seconds for one call to the registry, all its attempts included.
CALL_TIMEOUT = 10.0


class AccountsClient:
    """The registry's users as the api asks for them.

    Args:
        stub: Of a channel to the registry.
    """

    def __init__(self, stub: stored_pb2_grpc.AccountsAsyncStub) -> None:
        self.stub = stub

    async def whose(self, token: Token) -> account_pb2.Token:
        """What the registry knows of a token; only its id and its secret's digest are sent."""
        request = stored_pb2.CheckTokenRequest(id=token.id, digest=token.digest)
        return (await self.stub.CheckToken(request, timeout=CALL_TIMEOUT)).token

    async def charge(self, user: str, count: int) -> None:
        """Counts bytes that a user is about to store.

        Raises:
            QuotaError: they exceed the user's quota.
            grpc.RpcError: the registry could not count them.
        """
        request = stored_pb2.ChargeRequest(user=user, bytes=count)
        try:
            await self.stub.Charge(request, timeout=CALL_TIMEOUT)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            raise QuotaError("bytes_per_day", error.details() or "quota bytes_per_day") from error


@speaks_status
class AccountsServicer(accounts_pb2_grpc.AccountsServicer):
    """Administrators' calls, and everybody's for who they are.

    Args:
        callers: Finds out who calls.
        accounts: The registry's users.
    """

    def __init__(self, callers: Callers, accounts: AccountsClient) -> None:
        self._callers = callers
        self._stub = accounts.stub

    async def WhoAmI(
        self, request: accounts_pb2.WhoAmIRequest, context: Any
    ) -> accounts_pb2.WhoAmIResponse:
        caller = await self._caller(context)
        answer = await self._stub.ListUsers(
            stored_pb2.ListUsersRequest(name=caller.user), timeout=CALL_TIMEOUT
        )
        return accounts_pb2.WhoAmIResponse(user=answer.users[0], token=caller.token)

    async def AddUser(
        self, request: accounts_pb2.AddUserRequest, context: Any
    ) -> accounts_pb2.AddUserResponse:
        await self._caller(context, ADMIN)
        answer = await self._stub.PutUser(
            stored_pb2.PutUserRequest(name=request.name, quotas=request.quotas, create=True),
            timeout=CALL_TIMEOUT,
        )
        return accounts_pb2.AddUserResponse(user=answer.user)

    async def SetUser(
        self, request: accounts_pb2.SetUserRequest, context: Any
    ) -> accounts_pb2.SetUserResponse:
        await self._caller(context, ADMIN)
        answer = await self._stub.PutUser(
            stored_pb2.PutUserRequest(
                name=request.name, quotas=request.quotas, disabled=request.disabled
            ),
            timeout=CALL_TIMEOUT,
        )
        return accounts_pb2.SetUserResponse(user=answer.user)

    async def ListUsers(
        self, request: accounts_pb2.ListUsersRequest, context: Any
    ) -> accounts_pb2.ListUsersResponse:
        await self._caller(context, ADMIN)
        answer = await self._stub.ListUsers(stored_pb2.ListUsersRequest(), timeout=CALL_TIMEOUT)
        return accounts_pb2.ListUsersResponse(users=answer.users)

    async def CreateToken(
        self, request: accounts_pb2.CreateTokenRequest, context: Any
    ) -> accounts_pb2.CreateTokenResponse:
        await self._caller(context, ADMIN)
        # Drawn here: the registry gets the digest, and its call may be sent again.
        fresh = tokens.new()
        unset = not (request.valid.seconds or request.valid.nanos)
        answer = await self._stub.CreateToken(
            stored_pb2.CreateTokenRequest(
                id=fresh.id,
                digest=fresh.digest,
                user=request.user,
                scopes=request.scopes,
                label=request.label,
                valid=duration(tokens.DEFAULT_VALID) if unset else request.valid,
            ),
            timeout=CALL_TIMEOUT,
        )
        return accounts_pb2.CreateTokenResponse(token=answer.token, secret=fresh.text)

    async def ListTokens(
        self, request: accounts_pb2.ListTokensRequest, context: Any
    ) -> accounts_pb2.ListTokensResponse:
        await self._caller(context, ADMIN)
        answer = await self._stub.ListTokens(
            stored_pb2.ListTokensRequest(user=request.user), timeout=CALL_TIMEOUT
        )
        return accounts_pb2.ListTokensResponse(tokens=answer.tokens)

    async def RevokeToken(
        self, request: accounts_pb2.RevokeTokenRequest, context: Any
    ) -> accounts_pb2.RevokeTokenResponse:
        await self._caller(context, ADMIN)
        answer = await self._stub.RevokeToken(
            stored_pb2.RevokeTokenRequest(id=request.id), timeout=CALL_TIMEOUT
        )
        return accounts_pb2.RevokeTokenResponse(token=answer.token)

    async def _caller(self, context: Any, scope: int | None = None) -> Caller:
        if not self._callers.required:
            raise PreconditionError(
                "this gateway is open to everybody and has no users; start its api with"
                " `--users required`"
            )
        return await self._callers.of(context, scope)
