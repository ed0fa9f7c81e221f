"""Draws docs/shoal-ps.svg from a running fleet:  .venv/bin/python scripts/pictures.py .shoal."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from shoal_gateway.cli import render
from shoal_gateway.fleet import Fleet
from shoal_gateway.fleet.layout import SERVICES

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Asks the fleet's directory and draws what `shoal ps` shows."""
    fleet = Fleet(Path(sys.argv[1]))
    console = Console(record=True, width=104, file=io.StringIO())
    with fleet.directory_of() as directory:
        rows = [
            render.replica_json(service, replica)
            for service in SERVICES
            for replica in directory.ready(service, timeout=30.0)
        ]
        title = f"ZooKeeper {fleet.state.zookeeper}: {directory.describe()}"
    console.print(render.replica_table(rows, title))
    drawn = console.export_svg(title="shoal ps")
    # The fonts that rich would load from elsewhere: a picture in our docs fetches nothing.
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    (DOCS / "shoal-ps.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
