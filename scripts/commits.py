"""Fails when a commit since the first that named an issue (``#N``) names none."""

from __future__ import annotations

import re
import subprocess
import sys

ISSUE = re.compile(r"#\d+\b")


def nameless(log: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Commits that name no issue, of those after the first that did.

    Args:
        log: (short hash, whole message) of each commit, oldest first.
    """
    since_first = iter(log)
    for _, message in since_first:
        if ISSUE.search(message):
            break
    return [(commit, message) for commit, message in since_first if not ISSUE.search(message)]


def read_log() -> list[tuple[str, str]]:
    """The history of HEAD, oldest first, merges left out."""
    out = subprocess.run(
        ["git", "log", "--reverse", "--no-merges", "--format=%h%x1f%B%x1e"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    records = (record.strip().split("\x1f") for record in out.split("\x1e") if record.strip())
    return [(commit, message) for commit, message in records]


def main() -> int:
    """Prints the offenders; the exit code says whether there were any."""
    offenders = nameless(read_log())
    for commit, message in offenders:
        subject = message.strip().splitlines()[0] if message.strip() else "(no message)"
        print(f"{commit} names no issue: {subject}", file=sys.stderr)
    return 1 if offenders else 0


if __name__ == "__main__":
    sys.exit(main())
