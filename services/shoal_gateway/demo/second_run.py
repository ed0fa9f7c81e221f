"""The same jobs again, outside the gateway: what their files must be."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Runs in the flavor's own environment, which has the library version that the jobs had.
_BATCH = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
import forecast
cases = json.load(sys.stdin)
text = open(sys.argv[2], encoding="utf-8").read()
made = forecast.recompute(text, [tuple(case) for case in cases])
json.dump([[hashlib.sha256(part).hexdigest() for part in pair] for pair in made], sys.stdout)
"""


class SecondRunError(Exception):
    """The second run failed, so that nothing can be compared."""


@dataclass(frozen=True, slots=True)
class Case:
    """A job of the demo.

    Attributes:
        flavor: Where it runs.
        month: Parameter.
        seed: Parameter.
    """

    flavor: str
    month: int
    seed: int


def checksums(
    project: Path, observations: Path, cases: Mapping[str, Case]
) -> dict[str, dict[str, str]]:
    """Checksums of the files of every job, by job id, made in one process for each flavor.

    Raises:
        SecondRunError: it failed; the message holds what it printed.
    """
    expected: dict[str, dict[str, str]] = {}
    for flavor in sorted({case.flavor for case in cases.values()}):
        ids = [job_id for job_id, case in cases.items() if case.flavor == flavor]
        wanted = [[cases[job_id].month, cases[job_id].seed] for job_id in ids]
        command = [
            str(python(project, flavor)),
            "-c",
            _BATCH,
            str(project / "examples" / "climate"),
            str(observations),
        ]
        done = subprocess.run(
            command,
            input=json.dumps(wanted),
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
        if done.returncode != 0:
            raise SecondRunError(f"the second run of flavor {flavor} failed:\n{done.stderr}")
        for job_id, (result, plot) in zip(ids, json.loads(done.stdout), strict=True):
            expected[job_id] = {"result.json": result, "forecast.png": plot}
    return expected


def by_command(project: Path, observations: Path, cases: Sequence[Case]) -> list[dict[str, str]]:
    """Checksums of some jobs' files, each made by the application's own command.

    Raises:
        SecondRunError: a command failed; the message holds what it printed.
    """
    found = []
    for case in cases:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            command = [
                str(python(project, case.flavor)),
                str(project / "examples" / "climate" / "forecast.py"),
                *("--observations", str(observations)),
                *("--month", str(case.month)),
                *("--seed", str(case.seed)),
                *("--result", str(directory / "result.json")),
                *("--plot", str(directory / "forecast.png")),
            ]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment()
            )
            if done.returncode != 0:
                raise SecondRunError(f"{case} failed:\n{done.stderr}")
            found.append(
                {
                    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                    for path in sorted(directory.iterdir())
                }
            )
    return found


def python(project: Path, flavor: str) -> Path:
    """A flavor's interpreter."""
    return project / "build" / "flavors" / flavor / "bin" / "python"


def environment() -> dict[str, str]:
    """As jobs have it: one thread, for sums of floats depend on their order."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
