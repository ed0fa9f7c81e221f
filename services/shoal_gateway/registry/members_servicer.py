"""Users and tokens on the wire, beside the jobs."""

# ruff: noqa: N802, D102, ARG002 - methods are named, documented and called as the contract says

from __future__ import annotations

import functools
from typing import Any

from shoal_gateway import tokens
from shoal_gateway import validation as check
from shoal_gateway.errors import PreconditionError, QuotaError
from shoal_gateway.registry import checks
from shoal_gateway.registry.members import Members
from shoal_gateway.registry.quotas import LARGEST
from shoal_gateway.registry.servicer import RegistryServicer
from shoal_gateway.status import speaks_status
from shoal_protos.gateway.registry.v1 import accounts_pb2, accounts_pb2_grpc


@speaks_status
class MembersServicer(accounts_pb2_grpc.AccountsServicer):
    """Checks requests and runs them on the registry's threads.

    Args:
        members: The users.
        registry: Whose threads.
    """

    def __init__(self, members: Members, registry: RegistryServicer) -> None:
        self._members = members
        self._threads = registry

    async def CheckToken(
        self, request: accounts_pb2.CheckTokenRequest, context: Any
    ) -> accounts_pb2.CheckTokenResponse:
        token_id, digest = checks.token_id(request.id), checks.digest(request.digest)
        found = await self._threads.reading(self._members.check, token_id, digest)
        return accounts_pb2.CheckTokenResponse(token=found)

    async def Charge(
        self, request: accounts_pb2.ChargeRequest, context: Any
    ) -> accounts_pb2.ChargeResponse:
        user = checks.user_name(request.user, "user")
        count = check.whole(request.bytes, "bytes", 0, LARGEST)
        try:
            await self._threads.writing(self._members.charge, user, count)
        except QuotaError as error:
            # RESOURCE_EXHAUSTED would count against this replica, which is well.
            raise PreconditionError(str(error)) from error
        return accounts_pb2.ChargeResponse()

    async def PutUser(
        self, request: accounts_pb2.PutUserRequest, context: Any
    ) -> accounts_pb2.PutUserResponse:
        put = functools.partial(
            self._members.put_user, disabled=request.disabled, create=request.create
        )
        name = checks.user_name(request.name, "name")
        found = await self._threads.writing(put, name, checks.quotas(request.quotas, "quotas"))
        return accounts_pb2.PutUserResponse(user=found)

    async def ListUsers(
        self, request: accounts_pb2.ListUsersRequest, context: Any
    ) -> accounts_pb2.ListUsersResponse:
        name = checks.user_name(request.name, "name") if request.name else ""
        found = await self._threads.reading(self._members.users, name)
        return accounts_pb2.ListUsersResponse(users=found)

    async def CreateToken(
        self, request: accounts_pb2.CreateTokenRequest, context: Any
    ) -> accounts_pb2.CreateTokenResponse:
        create = functools.partial(
            self._members.create_token,
            label=check.optional(request.label, "label", limit=check.MAX_NAME),
            valid=check.seconds(request.valid, "valid", *tokens.VALID),
        )
        found = await self._threads.writing(
            create,
            checks.token_id(request.id),
            checks.digest(request.digest),
            checks.user_name(request.user, "user"),
            checks.scopes(request.scopes),
        )
        return accounts_pb2.CreateTokenResponse(token=found)

    async def ListTokens(
        self, request: accounts_pb2.ListTokensRequest, context: Any
    ) -> accounts_pb2.ListTokensResponse:
        user = checks.user_name(request.user, "user") if request.user else ""
        found = await self._threads.reading(self._members.tokens, user)
        return accounts_pb2.ListTokensResponse(tokens=found)

    async def RevokeToken(
        self, request: accounts_pb2.RevokeTokenRequest, context: Any
    ) -> accounts_pb2.RevokeTokenResponse:
        found = await self._threads.writing(self._members.revoke, checks.token_id(request.id))
        return accounts_pb2.RevokeTokenResponse(token=found)
