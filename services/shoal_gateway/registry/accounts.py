"""Users, tokens and what was used, in the store. Functions of a transaction."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from shoal_gateway.convert import timestamp
from shoal_gateway.errors import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    UnauthenticatedError,
)
from shoal_gateway.registry import quotas as rules
from shoal_gateway.registry.clock import store_now
from shoal_gateway.registry.quotas import Exceeded, Quotas, Used
from shoal_gateway.registry.rules import TERMINAL
from shoal_gateway.registry.schema import jobs, tokens, users
from shoal_gateway.tokens import SCOPE_NAMES, SCOPES
from shoal_protos.gateway.model.v1 import account_pb2, job_pb2

_ALIVE = sorted(set(job_pb2.State.values()) - TERMINAL - {job_pb2.STATE_UNSPECIFIED})
_QUOTAS = (rules.JOBS_IN_FLIGHT, rules.SUBMITS_PER_MINUTE, rules.BYTES_PER_DAY)

# One answer for a token that never was and for a wrong secret.
UNKNOWN = "the token is not known here; ask an administrator for one, or see `shoal tokens`"


def put_user(
    connection: sa.Connection,
    name: str,
    own: Mapping[str, int | None],
    *,
    disabled: bool = False,
    create: bool = False,
) -> None:
    """Makes or changes a user.

    Raises:
        AlreadyExistsError: it was to be a new one and is there.
        NotFoundError: it was to be changed and is not there.
    """
    values = {"disabled": disabled, **{quota: own.get(quota) for quota in _QUOTAS}}
    there = connection.scalar(sa.select(users.c.name).where(users.c.name == name))
    if create and there is not None:
        raise AlreadyExistsError(
            f"there is a user {name} already; change it with `shoal users set`"
        )
    if create:
        connection.execute(
            users.insert().values(
                name=name,
                created_at=store_now(),
                minute_began=0.0,
                minute_submits=0,
                day_began=0.0,
                day_bytes=0,
                **values,
            )
        )
    elif there is None:
        raise missing(name)
    else:
        connection.execute(users.update().where(users.c.name == name).values(**values))


def missing(name: str) -> NotFoundError:
    """The error for a user that is not there."""
    return NotFoundError(f"there is no user {name}; make one with `shoal users add {name}`")


def listed(connection: sa.Connection, common: Quotas, name: str = "") -> list[account_pb2.User]:
    """Users with what they may have and have used; one of them where a name is given."""
    query = sa.select(users, store_now().label("now")).order_by(users.c.name)
    if name:
        query = query.where(users.c.name == name)
    found = []
    for row in connection.execute(query):
        used = _used(row, _in_flight(connection, row.name)).at(row.now)
        found.append(
            account_pb2.User(
                name=row.name,
                disabled=row.disabled,
                created_at=timestamp(row.created_at),
                quotas=account_pb2.Quotas(
                    **{quota: row._mapping[quota] for quota in _QUOTAS}  # noqa: SLF001 - public
                ),
                effective=_message(_effective(row, common)),
                used=account_pb2.Quotas(
                    jobs_in_flight=used.jobs_in_flight,
                    submits_per_minute=used.minute_submits,
                    bytes_per_day=used.day_bytes,
                ),
            )
        )
    return found


def create_token(
    connection: sa.Connection,
    token_id: str,
    digest: bytes,
    user: str,
    scopes: Sequence[int],
    label: str,
    valid: float,
) -> account_pb2.Token:
    """Writes a token down; the same one again changes nothing.

    Raises:
        NotFoundError: there is no such user.
        AlreadyExistsError: the id is another token's.
    """
    if connection.scalar(sa.select(users.c.name).where(users.c.name == user)) is None:
        raise missing(user)
    row = _token(connection, token_id)
    if row is None:
        connection.execute(
            tokens.insert().values(
                id=token_id,
                user=user,
                digest=digest,
                scopes=" ".join(SCOPE_NAMES[scope] for scope in sorted(set(scopes))),
                label=label,
                created_at=store_now(),
                expires_at=store_now() + valid,
            )
        )
        row = _token(connection, token_id)
    elif row.user != user or not hmac.compare_digest(row.digest, digest):
        raise AlreadyExistsError(f"id: {token_id} is another token's")
    return _token_message(row)


def tokens_of(connection: sa.Connection, user: str) -> list[account_pb2.Token]:
    """A user's tokens, or everybody's, the newest first."""
    query = sa.select(tokens).order_by(tokens.c.user, tokens.c.created_at.desc())
    if user:
        query = query.where(tokens.c.user == user)
    return [_token_message(row) for row in connection.execute(query)]


def revoke(connection: sa.Connection, token_id: str) -> account_pb2.Token:
    """Revokes a token; one that is revoked stays so from the first time on.

    Raises:
        NotFoundError: there is no such token.
    """
    connection.execute(
        tokens.update()
        .where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        .values(revoked_at=store_now())
    )
    row = _token(connection, token_id)
    if row is None:
        raise NotFoundError(f"there is no token {token_id}; see `shoal tokens list`")
    return _token_message(row)


def check(connection: sa.Connection, token_id: str, digest: bytes) -> account_pb2.Token:
    """The token of an id and a digest.

    What is wrong with it is said to who has shown its secret, and to nobody else.

    Raises:
        UnauthenticatedError: it is not good.
    """
    row = connection.execute(
        sa.select(tokens, users.c.disabled, (tokens.c.expires_at <= store_now()).label("expired"))
        .join_from(tokens, users)
        .where(tokens.c.id == token_id)
    ).one_or_none()
    if row is None or not hmac.compare_digest(row.digest, digest):
        raise UnauthenticatedError(UNKNOWN)
    if row.revoked_at is not None:
        raise UnauthenticatedError("the token was revoked; ask an administrator for another")
    if row.expired:
        raise UnauthenticatedError("the token has expired; ask an administrator for another")
    if row.disabled:
        raise UnauthenticatedError("the token's user is disabled; ask an administrator why")
    return _token_message(row)


def charge(connection: sa.Connection, common: Quotas, user: str, count: int) -> Exceeded | None:
    """Notes bytes that are about to be stored; why they may not be."""
    row = _locked(connection, user)
    used = rules.more_bytes(
        user, _effective(row, common), _used(row, 0).at(row.now), row.now, count
    )
    if isinstance(used, Exceeded):
        return used
    _note(connection, user, used)
    return None


def note_published(connection: sa.Connection, published: Iterable[tuple[str, int]]) -> None:
    """Notes bytes that jobs have published, by their users.

    Called before the journal's counter is locked: a submit locks its user first and the counter
    after, and two that lock in two orders wait for each other.
    """
    sums: dict[str, int] = {}
    for user, count in published:
        sums[user] = sums.get(user, 0) + count
    for user in sorted(sums):
        over = sa.or_(users.c.day_began + rules.DAY <= store_now(), users.c.day_began > store_now())
        connection.execute(
            users.update()
            .where(users.c.name == user)
            .values(
                day_bytes=sa.case((over, sums[user]), else_=users.c.day_bytes + sums[user]),
                day_began=sa.case((over, store_now()), else_=users.c.day_began),
            )
        )


class Allowances:
    """What the users of one batch of submits may still have, under their rows' locks.

    Args:
        connection: The transaction that writes the jobs, too.
        common: Bounds of users who have none of their own.
        names: The users.

    Raises:
        InvalidError: there is no such user.
    """

    def __init__(self, connection: sa.Connection, common: Quotas, names: Iterable[str]) -> None:
        self._connection = connection
        self._users: dict[str, tuple[Quotas, Used, float]] = {}
        # In one order, for two batches may be of the same users.
        for name in sorted(set(names)):
            row = _locked(connection, name)
            bounds = _effective(row, common)
            in_flight = _in_flight(connection, name, bounds.jobs_in_flight)
            self._users[name] = (bounds, _used(row, in_flight).at(row.now), row.now)

    def take(self, user: str) -> Exceeded | None:
        """Counts one job; or why there may be none."""
        bounds, used, now = self._users[user]
        after = rules.next_job(user, bounds, used, now)
        if isinstance(after, Exceeded):
            return after
        self._users[user] = (bounds, after, now)
        return None

    def note(self) -> None:
        """Writes down what was taken."""
        for name, (_, used, _) in self._users.items():
            _note(self._connection, name, used)


def _locked(connection: sa.Connection, user: str) -> sa.Row[Any]:
    row = connection.execute(
        sa.select(users, store_now().label("now")).where(users.c.name == user).with_for_update()
    ).one_or_none()
    if row is None:
        raise InvalidError("account", f"there is no user {user!r}")
    return row


def _note(connection: sa.Connection, user: str, used: Used) -> None:
    connection.execute(
        users.update()
        .where(users.c.name == user)
        .values(
            minute_began=used.minute_began,
            minute_submits=used.minute_submits,
            day_began=used.day_began,
            day_bytes=used.day_bytes,
        )
    )


def _in_flight(connection: sa.Connection, user: str, most: int | None = None) -> int:
    """Jobs of a user that have not ended; not counted beyond ``most``."""
    alive = sa.select(sa.literal(1)).where(jobs.c.account == user, jobs.c.state.in_(_ALIVE))
    if most is not None:
        alive = alive.limit(most)
    return connection.scalar(sa.select(sa.func.count()).select_from(alive.subquery())) or 0


def _used(row: sa.Row[Any], in_flight: int) -> Used:
    return Used(in_flight, row.minute_began, row.minute_submits, row.day_began, row.day_bytes)


def _effective(row: sa.Row[Any], common: Quotas) -> Quotas:
    own = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
    return Quotas(
        **{quota: getattr(common, quota) if own[quota] is None else own[quota] for quota in _QUOTAS}
    )


def _message(found: Quotas) -> account_pb2.Quotas:
    return account_pb2.Quotas(**{quota: getattr(found, quota) for quota in _QUOTAS})


def _token(connection: sa.Connection, token_id: str) -> Any:
    return connection.execute(sa.select(tokens).where(tokens.c.id == token_id)).one_or_none()


def _token_message(row: Any) -> account_pb2.Token:
    return account_pb2.Token(
        id=row.id,
        user=row.user,
        scopes=[account_pb2.Scope.ValueType(SCOPES[name]) for name in row.scopes.split()],
        label=row.label,
        created_at=timestamp(row.created_at),
        expires_at=timestamp(row.expires_at),
        revoked_at=timestamp(row.revoked_at),
    )
