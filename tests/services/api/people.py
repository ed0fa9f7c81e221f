"""An api that asks for users, and people with tokens."""

from __future__ import annotations

import hashlib
import uuid

import grpc
import pytest

from shoal_protos.gateway.api.v1 import accounts_pb2_grpc, api_pb2, api_pb2_grpc

CODE = grpc.StatusCode


TIMEOUT = 20.0


# Where the secret begins in a token.
SECRET = len("shoal_0123456789abcdef_")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class User:
    """Somebody with a token."""

    def __init__(self, channel, secret):
        self._metadata = [("authorization", f"Bearer {secret}")] if secret else []
        self._api = api_pb2_grpc.ApiStub(channel)
        self._accounts = accounts_pb2_grpc.AccountsStub(channel)

    async def __call__(self, method, request):
        """The answer, or the answers of a stream."""
        stub = self._accounts if hasattr(self._accounts, method) else self._api
        call = getattr(stub, method)(request, timeout=TIMEOUT, metadata=self._metadata)
        if hasattr(call, "__aiter__"):
            return [each async for each in call]
        return await call

    async def refusal(self, method, request):
        """Code and details of the error that a call must end with."""
        with pytest.raises(grpc.RpcError) as caught:
            await self(method, request)
        return caught.value.code(), caught.value.details()

    async def submit(self, **fields):
        request = api_pb2.SubmitRequest(
            **{"application": "nap", "idempotency_key": uuid.uuid4().hex, **fields}
        )
        return (await self("Submit", request)).job


def user_of(channel, stack, name, *scopes, **options):
    return User(channel, stack.token(name, *scopes, **options))


def upload(content):
    digest = hashlib.sha256(content).hexdigest()

    async def parts():
        yield api_pb2.UploadRequest(header={"sha256": digest})
        yield api_pb2.UploadRequest(chunk=content)

    return parts()
