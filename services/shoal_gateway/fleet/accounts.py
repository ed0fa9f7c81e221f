"""Running what refuses to run as root, when we are root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path


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


def as_account(account: str | None, command: Sequence[str]) -> list[str]:
    """A command line that runs another as an account; None: as ourselves.

    Not by ``subprocess``'s ``user=``: that forks where it would else vfork, and what grpc does in a
    forked child may kill it before it runs anything.
    """
    if account is None:
        return list(command)
    entry = pwd.getpwnam(account)
    ids = [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--", *command]


def give(path: Path, account: str | None) -> None:
    """Makes a file or directory an account's."""
    if account is not None:
        entry = pwd.getpwnam(account)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def reaches(account: str | None, directory: Path) -> bool:
    """Whether an account may enter a directory; every one above it must let it pass too."""
    command = as_account(account, ["test", "-x", str(directory)])
    asked = subprocess.run(command, cwd="/", check=False)
    return asked.returncode == 0
