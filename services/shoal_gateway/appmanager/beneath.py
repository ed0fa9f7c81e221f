"""Files below a directory in which a job may have planted links.

A manager may be root, and a job's directory is the job's: where the job has put a link, a path
means what the job wants. So nothing is opened by a path here that could have changed since it was
looked at: each part is opened below the one before, and none may be a link.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path, PurePosixPath

_FOLLOW_NOT = os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _FOLLOW_NOT


def opened(directory: Path, name: str, owner: int = 0) -> int:
    """A descriptor of a plain file below a directory. Links are followed if they stay below.

    Args:
        directory: Where.
        name: Its relative path.
        owner: Whose it must be: a hard link to somebody else's is none of the job's; 0: anybody's.

    Raises:
        OSError: there is none such; FileNotFoundError where it is none of the directory's.
    """
    base = os.path.realpath(directory)
    # Not Path.resolve: of links in a circle it makes an error of another kind.
    path = Path(os.path.realpath(Path(base) / name))
    if not path.is_relative_to(base):
        raise FileNotFoundError(f"{name} leads out of its directory")
    parts = path.relative_to(base).parts
    if not parts:
        raise FileNotFoundError(f"{name} is the directory itself")
    parent = _descend(base, parts[:-1], make=False, owner=0)
    try:
        # Not waiting, should it be a pipe by now.
        found = os.open(parts[-1], os.O_RDONLY | os.O_NONBLOCK | _FOLLOW_NOT, dir_fd=parent)
    finally:
        os.close(parent)
    seen = os.fstat(found)
    if not stat.S_ISREG(seen.st_mode) or (owner and seen.st_uid != owner):
        os.close(found)
        raise FileNotFoundError(f"{name} is no file of the job's")
    return found


def created(directory: Path, name: str, owner: int = 0) -> int:
    """A descriptor of a new file below a directory, to write; directories on the way are made.

    Args:
        directory: Where.
        name: Its relative path.
        owner: Whom it and they are given to; 0: nobody.

    Raises:
        OSError: something is in the way, a link among others.
    """
    *above, last = PurePosixPath(name).parts
    parent = _descend(os.path.realpath(directory), above, make=True, owner=owner)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FOLLOW_NOT
        made = os.open(last, flags, 0o644, dir_fd=parent)
    finally:
        os.close(parent)
    if owner:
        os.fchown(made, owner, owner)
    return made


def _descend(base: str, parts: tuple[str, ...] | list[str], *, make: bool, owner: int) -> int:
    here = os.open(base, _DIRECTORY)
    for part in parts:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, _DIRECTORY, dir_fd=here)
            if owner:
                os.fchown(below, owner, owner)
        finally:
            os.close(here)
        here = below
    return here
