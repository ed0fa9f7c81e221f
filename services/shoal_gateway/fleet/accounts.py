"""Running what refuses to run as root, when we are root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def unprivileged(names: Sequence[str]) -> str | None:
    """Whom to run something as that does not run as root; None: whoever we are.

    Args:
        names: Accounts, in the order in which they are tried.

    Raises:
        LookupError: we are root, and none of the accounts exists.
    """
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in names:
        if name in known:
            return name
    raise LookupError(f"there is no account {' or '.join(names)} on this machine")


def becoming(account: str | None) -> dict[str, Any]:
    """Arguments of `subprocess.Popen` that make a process another account's; None: our own."""
    if account is None:
        return {}
    return {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []}


def give(path: Path, account: str | None) -> None:
    """Makes a file or directory an account's."""
    if account is not None:
        entry = pwd.getpwnam(account)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def reaches(account: str | None, directory: Path) -> bool:
    """Whether an account may enter a directory; every one above it must let it pass too."""
    asked = subprocess.run(
        ["test", "-x", str(directory)], cwd="/", check=False, **becoming(account)
    )
    return asked.returncode == 0
