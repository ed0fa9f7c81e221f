"""Brings a store's tables to this version before any replica of it starts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from shoal_gateway import runtime
from shoal_gateway.registry.store import Store, StoreError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m shoal_gateway.registry.migrate",
        description="Makes or changes the tables of a registry's store to what this version needs."
        " Every replica does so when it starts; this is for doing it before, and on its own.",
    )
    parser.add_argument("store", metavar="URL", help="as the registry's --store")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="for a store that is not up yet"
    )
    options = parser.parse_args(arguments)
    runtime.configure_logging("INFO")
    try:
        Store(options.store, wait=options.wait).close()
    except StoreError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
