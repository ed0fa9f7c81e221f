"""Files that are the old one or the new one, never half of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write(target: Path, data: bytes) -> None:
    """Replaces a file's content; makes its directory, closed to others, when it is missing.

    Raises:
        OSError: the disk does not take it; the old file is as it was.
    """
    # Whoever may write here may tell callers where to call.
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
