"""What a local PostgreSQL needs of the machine: its programs, and an account that is not root."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shoal_gateway.fleet import accounts
from shoal_gateway.fleet.errors import FleetError

# Accounts that root runs it as, in the order they are tried.
_ACCOUNTS = ("postgres", "nobody")

# Where Debian keeps the servers, one directory for each version; they are not on the path.
_DEBIAN = Path("/usr/lib/postgresql")

_CURE = (
    "Install it with `apt-get install postgresql`, or set POSTGRES_HOME to an unpacked release of "
    "PostgreSQL 12 or newer."
)


class PostgresError(FleetError):
    """PostgreSQL could not be found, started or ended; the message says what to do."""


def find_programs() -> Path:
    """The directory of ``postgres`` and ``initdb``: of ``$POSTGRES_HOME``, the path, or Debian's.

    Raises:
        PostgresError: there is none.
    """
    home = os.environ.get("POSTGRES_HOME")
    named = [Path(home) / "bin"] if home else []
    found = shutil.which("postgres")
    # The path may hold links; initdb looks for its neighbours beside the file itself.
    on_path = [Path(found).resolve().parent] if found else []
    versions = sorted(_DEBIAN.glob("*/bin"), key=_version, reverse=True)
    for directory in [*named, *on_path, *versions]:
        if all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb")):
            return directory
    looked = ", ".join(str(each) for each in [*named, "the path", f"{_DEBIAN}/*/bin"])
    raise PostgresError(f"PostgreSQL's server is not installed (looked in {looked}). {_CURE}")


def find_account() -> str | None:
    """Whom the server runs as; None: whoever we are.

    Raises:
        PostgresError: we are root, and there is no other account.
    """
    try:
        return accounts.unprivileged(_ACCOUNTS)
    except LookupError as error:
        raise PostgresError(
            f"PostgreSQL does not run as root, and {error} to run it as: make one with "
            "`useradd --system postgres`"
        ) from error


def _version(path: Path) -> float:
    try:
        return float(path.parent.name)
    except ValueError:
        return 0.0
