"""``python -m shoal_checker DIR``: judges DIR/history.jsonl and DIR/outputs/JOB/FILE.

Exit code 0 when nothing is wrong, 1 when something is, 2 when the history can't be judged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from shoal_checker.history import HistoryError, read
from shoal_checker.invariants import judge

SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shoal_checker", description=__doc__)
    parser.add_argument("directory", type=Path, help="of an experiment")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    options = parser.parse_args(arguments)
    try:
        lines = read(options.directory / "history.jsonl")
    except HistoryError as error:
        print(f"shoal check: {error}", file=sys.stderr)  # noqa: T201
        return 2
    verdict = judge(lines, checksums(options.directory / "outputs"))
    if options.json:
        document = {**asdict(verdict), "good": verdict.good, "line": verdict.line()}
        print(json.dumps(document, indent=2))  # noqa: T201
    else:
        for each in verdict.findings[:SHOWN]:
            print(f"{each.invariant}: {each.text}")  # noqa: T201
        if len(verdict.findings) > SHOWN:
            print(f"… and {len(verdict.findings) - SHOWN} more")  # noqa: T201
        print(verdict.line())  # noqa: T201
    return 0 if verdict.good else 1


def checksums(outputs: Path) -> dict[str, dict[str, str]]:
    """SHA-256 of every fetched file, by job and name."""
    return {
        job.name: {
            str(path.relative_to(job)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(job.rglob("*"))
            if path.is_file()
        }
        for job in (sorted(outputs.iterdir()) if outputs.is_dir() else [])
    }


if __name__ == "__main__":
    sys.exit(main())
