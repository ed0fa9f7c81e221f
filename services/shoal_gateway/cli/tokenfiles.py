"""Where a person's token is: in the environment, or in a file that nobody else can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shoal_gateway import tokens

VARIABLE = "SHOAL_TOKEN"
FILE_VARIABLE = "SHOAL_TOKEN_FILE"


class TokenError(ValueError):
    """A token that is there and can't be used; says why, without showing it."""


def token_of(fleets: Path | None = None) -> str | None:
    """The token to show.

    Of SHOAL_TOKEN, else of the file that SHOAL_TOKEN_FILE names, else of the local fleet's
    administrator, else of ``~/.config/shoal/token``.

    Args:
        fleets: Where a local fleet keeps its administrator's; None: the fleet is elsewhere.

    Returns:
        None where there is none: a gateway that is open to everybody needs none.

    Raises:
        TokenError: one is there and can't be used.
    """
    told = os.environ.get(VARIABLE)
    if told:
        return _checked(told.strip(), VARIABLE)
    named = os.environ.get(FILE_VARIABLE)
    if named:
        return read(Path(named))
    for path in (fleets, default_file()):
        if path is not None and path.exists():
            return read(path)
    return None


def default_file() -> Path:
    """Where a token is looked for when nothing else is said."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "shoal" / "token"


def read(path: Path) -> str:
    """The token in a file.

    Raises:
        TokenError: it can't be read, others can read it, or it holds no token.
    """
    try:
        with path.open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(1024).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"no token can be read from {path}: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TokenError(
            f"{path} can be read by others: chmod 600 {path}, and think about who has seen it"
        )
    return _checked(text, str(path))


def _checked(text: str, where: str) -> str:
    if tokens.parse(text) is None:
        raise TokenError(f"{where} holds no token; one is like shoal_<16 hex digits>_<secret>")
    return text
