"""Files that are the old one or the new one, never half of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write(
    target: Path, data: bytes, *, mode: int = 0o600, sync: bool = False, replace: bool = True
) -> None:
    """Replaces a file's content; makes its directory, closed to others, when it is missing.

    Args:
        target: The file.
        data: What it holds from then on.
        mode: Who may read it, from the first moment.
        sync: Whether it is on the disk before it is in place, and so outlives a power failure.
        replace: Whether it may take the place of another.

    Raises:
        FileExistsError: there is one that is not to be replaced.
        OSError: the disk does not take it; the old file is as it was.
    """
    # Whoever may write here may tell callers where to call.
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if replace:
            aside.replace(target)
        else:
            target.hardlink_to(aside)  # fails where there is one
    finally:
        aside.unlink(missing_ok=True)
