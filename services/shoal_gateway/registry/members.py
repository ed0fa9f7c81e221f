"""Users and tokens, each operation one transaction. No gRPC here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from shoal_gateway.errors import QuotaError
from shoal_gateway.registry import accounts
from shoal_gateway.registry.quotas import Quotas
from shoal_gateway.registry.store import Store
from shoal_protos.gateway.model.v1 import account_pb2

T = TypeVar("T")


class Members:
    """Who may use the gateway. Safe for several threads, and for several processes on one store.

    Args:
        store: Where they are.

    Attributes:
        quotas: Bounds of users who have none of their own; may be changed while it works.
    """

    def __init__(self, store: Store, quotas: Quotas | None = None) -> None:
        self.quotas = quotas or Quotas()
        self._store = store

    def put_user(
        self,
        name: str,
        own: Mapping[str, int | None],
        *,
        disabled: bool = False,
        create: bool = False,
    ) -> account_pb2.User:
        """Makes or changes a user.

        Raises:
            AlreadyExistsError: it was to be a new one and is there.
            NotFoundError: it was to be changed and is not there.
        """

        def put(connection: sa.Connection) -> account_pb2.User:
            accounts.put_user(connection, name, own, disabled=disabled, create=create)
            (found,) = accounts.listed(connection, self.quotas, name)
            return found

        return self._written(put)

    def users(self, name: str = "") -> list[account_pb2.User]:
        """All users, or the one of a name.

        Raises:
            NotFoundError: a name is given and nobody has it.
        """
        with self._store.read() as connection:
            found = accounts.listed(connection, self.quotas, name)
        if name and not found:
            raise accounts.missing(name)
        return found

    def create_token(
        self,
        token_id: str,
        digest: bytes,
        user: str,
        scopes: Sequence[int],
        *,
        label: str,
        valid: float,
    ) -> account_pb2.Token:
        """Writes a token down; the same one again changes nothing.

        Args:
            token_id: 16 hex digits.
            digest: SHA-256 of its secret.
            user: Whose.
            scopes: What it is good for.
            label: For a person.
            valid: Seconds until it expires.

        Raises:
            NotFoundError: there is no such user.
            AlreadyExistsError: the id is another token's.
        """
        return self._written(
            lambda connection: accounts.create_token(
                connection, token_id, digest, user, scopes, label, valid
            )
        )

    def _written(self, work: Callable[[sa.Connection], T]) -> T:
        """What a transaction brings that may write what another is just writing."""
        try:
            with self._store.write() as connection:
                return work(connection)
        except IntegrityError:
            # Between its look and its insert, which only PostgreSQL allows; now it is seen.
            with self._store.write() as connection:
                return work(connection)

    def tokens(self, user: str = "") -> list[account_pb2.Token]:
        """A user's tokens, or everybody's."""
        with self._store.read() as connection:
            return accounts.tokens_of(connection, user)

    def revoke(self, token_id: str) -> account_pb2.Token:
        """Revokes a token.

        Raises:
            NotFoundError: there is no such token.
        """
        with self._store.write() as connection:
            return accounts.revoke(connection, token_id)

    def check(self, token_id: str, digest: bytes) -> account_pb2.Token:
        """The token of an id and a digest.

        Raises:
            UnauthenticatedError: it is not good; says why to who has its secret.
        """
        with self._store.read() as connection:
            return accounts.check(connection, token_id, digest)

    def charge(self, user: str, count: int) -> None:
        """Notes bytes that a user is about to store.

        Raises:
            QuotaError: they exceed the user's quota; nothing was noted.
            InvalidError: there is no such user.
        """
        with self._store.write() as connection:
            exceeded = accounts.charge(connection, self.quotas, user, count)
        if exceeded is not None:
            raise QuotaError(exceeded.quota, exceeded.said)
