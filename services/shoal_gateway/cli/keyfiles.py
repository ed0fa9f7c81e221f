"""Where a person's private key is, for the commands that sign."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.directory import check_name

if TYPE_CHECKING:
    from shoal.signing import Signer

KeyFile = Annotated[
    Path | None,
    typer.Option(
        envvar="SHOAL_KEY_FILE",
        help="Private key (default: ~/.config/shoal/keys/OWNER.pem, if it is there).",
    ),
]


def key_path(owner: str, given: Path | None) -> Path:
    """The file of an owner's private key.

    Raises:
        ValueError: the owner's name can't be a file's.
    """
    if given is not None:
        return given
    check_name(owner)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "shoal" / "keys" / f"{owner}.pem"


def signer_of(owner: str, given: Path | None) -> Signer | None:
    """The owner's private key; None where there is none and none was asked for.

    Raises:
        KeyFileError: it can't be used; says why.
        ValueError: ``cryptography`` is not installed.
    """
    path = key_path(owner, given)
    if given is None and not path.exists():
        return None
    return load(path)


def load(path: Path) -> Signer:
    """The private key in a file.

    Raises:
        KeyFileError: it can't be used; says why.
        ValueError: ``cryptography`` is not installed.
    """
    return signers().load(path)


def signers() -> type[Signer]:
    """What makes and reads private keys.

    Raises:
        ValueError: ``cryptography`` is not installed.
    """
    try:
        from shoal.signing import Signer
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    return Signer
