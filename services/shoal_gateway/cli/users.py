"""``shoal users`` and ``shoal tokens``: who may use a gateway, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal import atomically
from shoal_gateway.cli import render
from shoal_gateway.cli.context import err, out, print_json
from shoal_gateway.cli.root import Json, app, where
from shoal_gateway.convert import unix
from shoal_gateway.tokens import SCOPE_NAMES, SCOPES
from shoal_protos.gateway.api.v1 import accounts_pb2, accounts_pb2_grpc
from shoal_protos.gateway.model.v1 import account_pb2

users = typer.Typer(
    help="Who may use the gateway: add, list, set, whoami. For administrators, but for the last.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
tokens = typer.Typer(
    help="Tokens that show who calls: create, list, revoke. For administrators.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(users, name="users")
app.add_typer(tokens, name="tokens")

TIMEOUT = 20.0

Jobs = Annotated[int | None, typer.Option(help="Jobs that have not ended.", min=0)]
PerMinute = Annotated[int | None, typer.Option(help="New jobs in a minute.", min=0)]
Bytes = Annotated[int | None, typer.Option(help="Uploaded and published in a day.", min=0)]


@users.command()
def add(
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")],
    jobs_in_flight: Jobs = None,
    submits_per_minute: PerMinute = None,
    bytes_per_day: Bytes = None,
    json_: Json = False,
) -> None:
    """Add a user. Quotas that are left out follow `shoal config get registry quotas`.

    Examples:  shoal users add ada    shoal users add robot --jobs-in-flight 5000
    """
    quotas = _quotas(jobs_in_flight, submits_per_minute, bytes_per_day)
    with _accounts() as accounts:
        answer = accounts.AddUser(
            accounts_pb2.AddUserRequest(name=name, quotas=quotas), timeout=TIMEOUT
        )
    if json_:
        print_json(_user_json(answer.user))
        return
    out.print(f"{name} is there", highlight=False)
    out.print(f"Make a token with `shoal tokens create {name}`.", style="dim")


@users.command("set")
def set_(
    name: Annotated[str, typer.Argument(help="A user, as `shoal users list` shows.")],
    jobs_in_flight: Jobs = None,
    submits_per_minute: PerMinute = None,
    bytes_per_day: Bytes = None,
    common: Annotated[
        bool, typer.Option("--common", help="Forget own quotas that are not named here.")
    ] = False,
    disable: Annotated[
        bool | None,
        typer.Option("--disable/--enable", help="Refuse all tokens of this user, or no longer."),
    ] = None,
    json_: Json = False,
) -> None:
    """Change a user's quotas, or disable them. What is left out stays as it is.

    Examples:  shoal users set ada --jobs-in-flight 5000    shoal users set mallory --disable

    shoal users set ada --common
    """
    with _accounts() as accounts:
        listed = accounts.ListUsers(accounts_pb2.ListUsersRequest(), timeout=TIMEOUT).users
        before = next((each for each in listed if each.name == name), account_pb2.User())
        quotas = account_pb2.Quotas()
        if not common:
            quotas.CopyFrom(before.quotas)
        quotas.MergeFrom(_quotas(jobs_in_flight, submits_per_minute, bytes_per_day))
        answer = accounts.SetUser(
            accounts_pb2.SetUserRequest(
                name=name,
                quotas=quotas,
                disabled=before.disabled if disable is None else disable,
            ),
            timeout=TIMEOUT,
        )
    _show([answer.user], json_)


@users.command("list")
def list_users(json_: Json = False) -> None:
    """List the users, with what they may have and what they use of it.

    Examples:  shoal users list    shoal users list --json
    """
    with _accounts() as accounts:
        found = accounts.ListUsers(accounts_pb2.ListUsersRequest(), timeout=TIMEOUT).users
    _show(found, json_)


@users.command()
def whoami(json_: Json = False) -> None:
    """Show whose token this is, what it is good for, and what is left of the quotas.

    Example:  shoal users whoami
    """
    with _accounts() as accounts:
        answer = accounts.WhoAmI(accounts_pb2.WhoAmIRequest(), timeout=TIMEOUT)
    if json_:
        print_json({"user": _user_json(answer.user), "token": _token_json(answer.token)})
        return
    token = _token_json(answer.token)
    out.print(
        f"{answer.user.name}, token {token['id']} ({', '.join(token['scopes'])}), until"
        f" {render.when(token['expires'])}",
        highlight=False,
    )
    _show([answer.user], json_)


@tokens.command()
def create(
    user: Annotated[str, typer.Argument(help="Whose; see `shoal users list`.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="jobs:read, jobs:write or admin; again for more (default: both jobs:)."),
    ] = None,
    days: Annotated[float, typer.Option(help="It holds for so many.", min=0.00002)] = 90.0,
    label: Annotated[str, typer.Option(help="For people: where it is used.")] = "",
    file: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write it here, for nobody else to read."),
    ] = None,
    json_: Json = False,
) -> None:
    """Make a token. It is shown once: on standard output, or in a file.

    Examples:  shoal tokens create ada --days 30 --label laptop -o ada.token

    shoal tokens create dashboard --scope jobs:read
    """
    wanted = []
    for name in scope or ["jobs:read", "jobs:write"]:
        if name not in SCOPES:
            raise typer.BadParameter(
                f"{name!r} is none of {', '.join(SCOPES)}", param_hint="--scope"
            )
        wanted.append(account_pb2.Scope.ValueType(SCOPES[name]))
    request = accounts_pb2.CreateTokenRequest(user=user, scopes=wanted, label=label)
    try:
        request.valid.FromTimedelta(timedelta(days=days))
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{days:g} days are no time", param_hint="--days") from error
    with _accounts() as accounts:
        answer = accounts.CreateToken(request, timeout=TIMEOUT)
    if file is not None:
        atomically.write(file, f"{answer.secret}\n".encode())
    elif not json_:
        out.print(answer.secret, soft_wrap=True, highlight=False)
    if json_:
        document = _token_json(answer.token)
        shown = {"secret": answer.secret} if file is None else {"file": str(file)}
        print_json({**document, **shown})
        return
    place = f"in {file}" if file is not None else "above, and nowhere else"
    err.print(
        f"token {answer.token.id} of {user} is {place}; it holds until"
        f" {render.when(unix(answer.token.expires_at))}",
        highlight=False,
    )


@tokens.command("list")
def list_tokens(
    user: Annotated[str, typer.Option(help="Only theirs.")] = "", json_: Json = False
) -> None:
    """List the tokens, without their secrets, which nobody keeps.

    Examples:  shoal tokens list    shoal tokens list --user ada --json
    """
    with _accounts() as accounts:
        request = accounts_pb2.ListTokensRequest(user=user)
        found = accounts.ListTokens(request, timeout=TIMEOUT).tokens
    rows = [_token_json(each) for each in found]
    if json_:
        print_json(rows)
        return
    out.print(render.token_table(rows))


@tokens.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="As `shoal tokens list` shows.")],
    json_: Json = False,
) -> None:
    """Revoke a token: within 5 seconds no replica takes it any more.

    Example:  shoal tokens revoke 0f3a9c1e5b7d2468
    """
    with _accounts() as accounts:
        answer = accounts.RevokeToken(accounts_pb2.RevokeTokenRequest(id=token_id), timeout=TIMEOUT)
    if json_:
        print_json(_token_json(answer.token))
    else:
        out.print(f"token {answer.token.id} of {answer.token.user} is revoked", highlight=False)


@contextmanager
def _accounts() -> Iterator[accounts_pb2_grpc.AccountsStub]:
    with where().gateway() as gateway:
        yield gateway.accounts


def _quotas(jobs: int | None, submits: int | None, count: int | None) -> account_pb2.Quotas:
    return account_pb2.Quotas(jobs_in_flight=jobs, submits_per_minute=submits, bytes_per_day=count)


def _show(found: Any, json_: bool) -> None:
    rows = [_user_json(each) for each in found]
    if json_:
        print_json(rows)
    else:
        out.print(render.user_table(rows))


def _user_json(user: account_pb2.User) -> dict[str, Any]:
    names = [each.name for each in account_pb2.Quotas.DESCRIPTOR.fields]
    own = {each.name for each, _ in user.quotas.ListFields()}
    return {
        "name": user.name,
        "disabled": user.disabled,
        "created": unix(user.created_at),
        "quotas": {
            name: {
                "limit": getattr(user.effective, name),
                "used": getattr(user.used, name),
                "own": name in own,
            }
            for name in names
        },
    }


def _token_json(token: account_pb2.Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user,
        "scopes": [SCOPE_NAMES[each] for each in token.scopes],
        "label": token.label,
        "created": unix(token.created_at),
        "expires": unix(token.expires_at),
        "revoked": unix(token.revoked_at) if token.HasField("revoked_at") else None,
    }
