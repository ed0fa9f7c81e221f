"""What a calling process is called in the reports of those it calls: who it is, for people."""

from __future__ import annotations

import os
import re
import socket
import sys
import uuid
from pathlib import PurePath

# What goes into one line and into a protobuf string, whatever a path or a host's name holds.
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


def named(unique: uuid.UUID) -> str:
    """``program@host.pid.UUID``: only the last part tells processes apart, the rest says whose.

    Args:
        unique: Made anew by each process, forked children too.
    """
    host = socket.gethostname()
    return f"{_plain(program(sys.argv))}@{_plain(host)}.{os.getpid()}.{unique}"


def program(arguments: list[str]) -> str:
    """The program's name from its command line; a package's when ``python -m`` runs one."""
    path = PurePath(arguments[0] if arguments else "")
    if path.name == "__main__.py":
        return path.parent.name
    return path.stem or "python"


def _plain(name: str) -> str:
    return _ODD.sub("_", name)[:40]
