"""Experiments as a user runs them: the command, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SHOAL = Path(sys.executable).with_name("shoal")


def small(name: str, out: Path, *options: str, timeout: float) -> tuple[str, dict[str, Any]]:
    """Runs an experiment in small; its last line and its report. It must be good.

    Args:
        name: Of the experiment.
        out: Where it writes.
        options: Further ones.
        timeout: Seconds until it is ended.
    """
    done = subprocess.run(
        [SHOAL, "experiment", name, "--small", "--seed", "3", "--out", out, *options],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1], json.loads((out / "report.json").read_text())


def check(out: Path) -> subprocess.CompletedProcess[str]:
    """Has the checker judge a run again."""
    return subprocess.run([SHOAL, "experiment", "check", out], capture_output=True, text=True)


def is_picture(path: Path) -> bool:
    """Whether there is a PNG."""
    return path.read_bytes().startswith(b"\x89PNG")
