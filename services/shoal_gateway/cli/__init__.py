"""The command line, ``shoal``."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point; says what to install when the bare SDK is all there is."""
    try:
        from shoal_gateway.cli.app import run
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0].startswith("shoal"):
            raise
        sys.stderr.write(
            f"shoal: the command line needs {error.name}: pip install 'shoal[gateway]'\n"
        )
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
