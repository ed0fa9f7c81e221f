"""``shoal certs``: an authority for development, and certificates for services and users."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.errors import TlsError
from shoal.identity import PeerIdentity
from shoal.tls import KEY, Tls, TlsFiles
from shoal_gateway.cli import render
from shoal_gateway.cli.context import err, out, print_json
from shoal_gateway.cli.root import Json, app

if TYPE_CHECKING:
    from shoal.authority import Authority, Issued

group = typer.Typer(
    help="Certificates for TLS between services and callers, of an authority for development.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(group, name="certs")

DAY = 86400.0
# A production's authority is another program; ours is renewed by hand or by cron.
AUTHORITY_DAYS, DAYS, SOON = 365.0, 30.0, 10.0

Place = Annotated[Path, typer.Argument(metavar="DIR", help="Where authority and certificates lie.")]
Days = Annotated[float, typer.Option(help="Days for which they hold.", min=0.01, max=3650)]
AuthorityDays = Annotated[
    float, typer.Option(help="Days for which the authority holds.", min=0.1, max=36500)
]


@group.command()
def init(directory: Place, days: AuthorityDays = AUTHORITY_DAYS, json_: Json = False) -> None:
    """Make an authority. Whoever can read DIR/authority can be anybody: keep it where you issue.

    Examples:  shoal certs init certs    shoal certs init /etc/shoal/certs --days 90
    """
    own = _authorities().create(directory, days=days).own()
    if json_:
        print_json(_json(own))
        return
    out.print(f"authority in {directory}, until {render.day(own.not_after)}", highlight=False)
    out.print(
        f"Next: shoal certs issue {directory} registry api scheduler appmanager operator",
        style="dim",
        highlight=False,
    )


@group.command()
def issue(
    directory: Place,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help="Services by name.")
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option(help="A user; they may call, and not be called.")
    ] = None,
    days: Days = DAYS,
    json_: Json = False,
) -> None:
    """Make keys and certificates: DIR/NAME for a service, DIR/NAME.users for a user.

    Copy what a host needs, and nothing else, and give it to the service with --tls.

    Examples:  shoal certs issue certs registry api scheduler appmanager operator

    shoal certs issue certs --user alice --days 7
    """
    wanted = [PeerIdentity(name) for name in names or ()]
    wanted += [PeerIdentity(name, user=True) for name in user or ()]
    if not wanted:
        raise typer.BadParameter("name services, or users with --user", param_hint="SERVICE")
    for each in wanted:
        # All before the first, for half of it is no use.
        each.dns_name()
    authority = _authorities()(directory)
    _told((authority.issue(each, days=days) for each in wanted), json_=json_)


@group.command()
def renew(
    directory: Place,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="As in `show`; all when left out."),
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Only those that end within so many days.", min=0.0)
    ] = None,
    days: Days = DAYS,
    json_: Json = False,
) -> None:
    """Put new keys and certificates in the place of those that are there; no process restarts.

    Examples:  shoal certs renew certs    shoal certs renew certs --within 10    shoal certs renew
    certs registry api
    """
    authority = _authorities()(directory)
    authority.own()  # there is one
    found = _chosen(authority, names or [])
    now = time.time()

    def renewed() -> Iterator[Path]:
        for each in found:
            if within is not None and each.not_after - now > within * DAY:
                continue
            if each.identity is None:
                raise TlsError(f"{each.place} names nobody that this authority could name again")
            yield authority.issue(each.identity, days=days)

    _told(renewed(), json_=json_)


@group.command()
def roll(
    directory: Place,
    finish: Annotated[
        bool, typer.Option("--finish", help="Trust the former authority no longer.")
    ] = False,
    days: AuthorityDays = AUTHORITY_DAYS,
    json_: Json = False,
) -> None:
    """Put a new authority in the place of the old one, without an outage, in three steps.

    Copy what changed to the hosts after each step, and let some seconds pass: all must trust the
    new one before anybody shows a certificate of it.

    Examples:  shoal certs roll certs    shoal certs renew certs    shoal certs roll certs --finish
    """
    authority = _authorities()(directory)
    if finish:
        authority.finish()
    else:
        authority.roll(days=days)
    if json_:
        print_json({"authority": _json(authority.own()), "rolling": authority.rolling})
        return
    if finish:
        out.print("the former authority is trusted no longer")
        return
    out.print("both authorities are trusted; the new one issues from now on")
    out.print(
        f"Next, when all hosts have it: shoal certs renew {directory}; then shoal certs roll "
        f"{directory} --finish",
        style="dim",
        highlight=False,
    )


@group.command()
def show(directory: Place, json_: Json = False) -> None:
    """List the certificates: whose, until when, by which authority.

    Examples:  shoal certs show certs    shoal certs show certs --json
    """
    authority = _authorities()(directory)
    own, found = authority.own(), authority.issued()
    if json_:
        document = {"authority": _json(own), "rolling": authority.rolling}
        print_json({**document, "certificates": [_json(each) for each in found]})
        return
    out.print(render.certificate_table([_json(each) for each in found], time.time()))
    out.print(f"authority: {own.issuer}, until {render.day(own.not_after)}", highlight=False)
    if authority.rolling:
        out.print("a roll is under way: two authorities are trusted", style="yellow")


@group.command()
def check(
    directory: Place,
    within: Annotated[
        float, typer.Option(help="What ends within so many days is a fault.", min=0.0)
    ] = SOON,
    json_: Json = False,
) -> None:
    """Look for faults: what has expired or soon will, does not go together, or is open to others.

    Exit code 1 when there are some, for cron and monitoring.

    Examples:  shoal certs check certs    shoal certs check certs --within 3
    """
    authority = _authorities()(directory)
    now = time.time()
    faults = []
    found = [authority.own(), *authority.issued()]
    for each in found:
        left = (each.not_after - now) / DAY
        if left < within:
            ends = f"ends in {left:.1f} days" if left > 0 else f"has ended {-left:.1f} days ago"
            faults.append(f"{each.place} {ends}")
    for each in found[1:]:
        if each.identity is None:
            faults.append(f"{each.place} is for {', '.join(each.names) or 'nobody'}")
        faults += _usable(each.place)
    if json_:
        print_json({"certificates": len(found), "faults": faults})
    else:
        for fault in faults:
            err.print(fault, style="red", soft_wrap=True)
        out.print(f"{len(found)} certificates, {len(faults)} faults", highlight=False)
    if faults:
        raise typer.Exit(1)


def _usable(place: Path) -> list[str]:
    faults = []
    try:
        TlsFiles(Tls.of(place))
    except TlsError as error:
        faults.append(str(error))
    key = place / KEY
    mode = key.stat().st_mode & 0o777 if key.exists() else 0
    if mode & 0o077:
        faults.append(f"others may read {key} (mode {mode:04o}): chmod 600, and renew it")
    return faults


def _chosen(authority: Authority, names: list[str]) -> list[Issued]:
    found = {each.place.name: each for each in authority.issued()}
    missing = [name for name in names if name not in found]
    if missing:
        there = ", ".join(found) or "none"
        raise typer.BadParameter(
            f"there is no certificate of {', '.join(missing)}; there are: {there}",
            param_hint="NAME",
        )
    return [found[name] for name in names] if names else list(found.values())


def _told(places: Iterable[Path], *, json_: bool) -> None:
    """Says of each what it is for, as soon as it is there."""
    from shoal.authority import described

    rows = []
    for place in places:
        made = described(place)
        rows.append(_json(made))
        if not json_:
            until = render.day(made.not_after)
            out.print(f"{place}: {made.names[0]} until {until}", highlight=False)
    if json_:
        print_json({"certificates": rows})


def _json(each: Issued) -> dict[str, Any]:
    return {
        "name": each.place.name,
        "identity": str(each.identity) if each.identity is not None else None,
        "names": list(each.names),
        "serial": each.serial,
        "issuer": each.issuer,
        "not_before": each.not_before,
        "not_after": each.not_after,
        "fingerprint": each.fingerprint,
    }


def _authorities() -> type[Authority]:
    """What makes authorities.

    Raises:
        ValueError: ``cryptography`` is not installed.
    """
    try:
        from shoal.authority import Authority
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    return Authority
