"""What the image's environment is made of, as requirements for pip. It needs none of our code.

wanted.py pin requirements/lock.txt pip              a release with its hashes
wanted.py extras pyproject.toml gateway,postgres     what those extras of Shoal need

So the layer of dependencies stays as it is when only our code has changed.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def pin(lock: str, name: str) -> str:
    """An entry of a lock file, with its hashes."""
    entries = lock.replace("\\\n", "").splitlines()
    found = [entry for entry in entries if entry.startswith(f"{name}==")]
    if not found:
        raise ValueError(f"the lock file does not pin {name}")
    return found[0]


def extras(project: str, names: str) -> str:
    """Requirements of some extras and of the bare package, one a line."""
    told = tomllib.loads(project)["project"]
    known = told["optional-dependencies"]
    wanted = [name for name in names.split(",") if name]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"EXTRAS names {', '.join(unknown)}; there are {', '.join(known)}")
    return "\n".join([*told["dependencies"], *(line for name in wanted for line in known[name])])


if __name__ == "__main__":
    mode, path, what = sys.argv[1:]
    try:
        made = {"pin": pin, "extras": extras}[mode](Path(path).read_text(encoding="utf-8"), what)
    except ValueError as error:
        sys.exit(f"wanted.py: {error}")
    sys.stdout.write(f"{made}\n")
