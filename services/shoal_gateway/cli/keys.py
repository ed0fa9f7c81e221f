"""``shoal keys``: private keys in files, public ones in ZooKeeper."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal_gateway.cli import render
from shoal_gateway.cli.context import out, print_json
from shoal_gateway.cli.keyfiles import KeyFile, key_path, load, signers
from shoal_gateway.cli.root import Json, app, where

if TYPE_CHECKING:
    from shoal.recipes.keys import Keys, PublicKey

group = typer.Typer(
    help="Keys that show who submits a job: new, publish, list, rotate, revoke.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(group, name="keys")

DAY = 86400.0
Days = Annotated[
    float | None, typer.Option(help="It holds for so many days (default: without an end).")
]


@group.command()
def new(file: KeyFile = None, json_: Json = False) -> None:
    """Make a private key, in a file that nobody else can read. It is not published yet.

    Examples:  shoal keys new    shoal keys new --key-file ./robot.pem
    """
    path = key_path(where().whose(), file)
    signer = signers().generate()
    signer.save(path)
    public = base64.b64encode(signer.public).decode()
    if json_:
        print_json({"id": signer.id, "file": str(path), "public": public})
        return
    out.print(f"{signer.id} in {path}", highlight=False)
    out.print(f"Publish it with `shoal keys publish`; its public half is {public}", style="dim")


@group.command()
def publish(
    public: Annotated[
        str | None, typer.Argument(help="Public half, in base64 (default: that of the key file).")
    ] = None,
    file: KeyFile = None,
    days: Days = None,
    comment: Annotated[str, typer.Option(help="For people: where the key is.")] = "",
    json_: Json = False,
) -> None:
    """Publish a key: within a second all gateways verify with it what its owner signs.

    Examples:  shoal keys publish --days 90

    shoal --owner alice keys publish q83vASNF…= --comment "alice's laptop"
    """
    meant = where()
    raw = _raw(public) if public else load(key_path(meant.whose(), file)).public
    end = time.time() + days * DAY if days is not None else None
    with _keys() as keys:
        key = keys.publish(meant.whose(), raw, not_after=end, comment=comment)
    if json_:
        print_json(_json(key, time.time()))
        return
    standing = key.standing(time.time())
    out.print(f"{key.owner}/{key.id} is {standing}, {_until(key)}", highlight=False)


@group.command("list")
def list_(
    mine: Annotated[bool, typer.Option("--mine", help="Only my own.")] = False,
    json_: Json = False,
) -> None:
    """List the published keys.

    Examples:  shoal keys list    shoal keys list --mine --json
    """
    meant = where()
    with _keys() as keys:
        keys.wait()
        found = [key for key in keys.all() if not mine or key.owner == meant.whose()]
        broken = dict(keys.broken)
    now = time.time()
    if json_:
        print_json({"keys": [_json(key, now) for key in found], "broken": broken})
    else:
        out.print(render.key_table([_json(key, now) for key in found]))
        for path, why in broken.items():
            out.print(f"/keys/{path} is no key: {why}", style="red")


@group.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")],
    why: Annotated[str, typer.Option(help="For whoever is refused because of it.")] = "",
    json_: Json = False,
) -> None:
    """End a key at once and for ever: it was lost, or another may know it.

    Example:  shoal keys revoke 3f9a --why "laptop was stolen"
    """
    owner = where().whose()
    with _keys() as keys:
        key = keys.revoke(owner, _one(keys, owner, key_id).id, why=why)
    if json_:
        print_json(_json(key, time.time()))
    else:
        out.print(f"{key.owner}/{key.id} is revoked", highlight=False)


@group.command()
def rotate(
    file: KeyFile = None,
    overlap: Annotated[
        float, typer.Option(help="Days for which the old key still holds.", min=0.0)
    ] = 1.0,
    days: Days = None,
    comment: Annotated[str, typer.Option(help="For people: where the key is.")] = "",
    json_: Json = False,
) -> None:
    """Put a new key in the place of the old one, which holds on for a while.

    An interrupted rotation is carried on by the next.

    Examples:  shoal keys rotate    shoal keys rotate --overlap 0.5 --days 90
    """
    owner = where().whose()
    path = key_path(owner, file)
    old = load(path)
    # The new key is on disk before it is published, so that it can't be lost in between.
    aside = path.with_name(f"{path.name}.new")
    if not aside.exists():
        signers().generate().save(aside)
    fresh = load(aside)
    now = time.time()
    end = now + days * DAY if days is not None else None
    with _keys() as keys:
        keys.wait()
        key = keys.publish(owner, fresh.public, not_after=end, comment=comment)
        published = keys.find(owner, old.id) is not None
        if published:
            old_one = keys.end(owner, old.id, now + overlap * DAY)
    aside.replace(path)
    if json_:
        before = _json(old_one, now) if published else None
        print_json({"file": str(path), "key": _json(key, now), "before": before})
        return
    out.print(f"{owner}/{key.id} in {path}", highlight=False)
    told = f"{old_one.standing(now)}, {_until(old_one)}" if published else "was never published"
    out.print(f"the one before, {owner}/{old.id}: {told}", style="dim", highlight=False)


@contextmanager
def _keys() -> Iterator[Keys]:
    signers()  # says what is missing
    from shoal.recipes.keys import Keys

    with where().directory() as directory, Keys(directory) as keys:
        yield keys


def _one(keys: Keys, owner: str, beginning: str) -> PublicKey:
    keys.wait()
    found = [key for key in keys.all() if key.owner == owner and key.id.startswith(beginning)]
    if len(found) != 1:
        there = ", ".join(key.id for key in found) or "none"
        raise typer.BadParameter(
            f"one key of {owner!r} must begin with {beginning!r}; there are: {there}",
            param_hint="KEY_ID",
        )
    return found[0]


def _raw(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not base64: {error}", param_hint="PUBLIC") from error
    if len(raw) != 32:
        raise typer.BadParameter(f"a key has 32 bytes, and this {len(raw)}", param_hint="PUBLIC")
    return raw


def _json(key: PublicKey, now: float) -> dict[str, Any]:
    return {
        "owner": key.owner,
        "id": key.id,
        "standing": str(key.standing(now)),
        "not_before": key.not_before,
        "not_after": key.not_after,
        "revoked_at": key.revoked_at,
        "why": key.why,
        "comment": key.comment,
        "public": base64.b64encode(key.raw).decode(),
    }


def _until(key: PublicKey) -> str:
    return f"until {render.day(key.not_after)}" if key.not_after is not None else "without an end"
