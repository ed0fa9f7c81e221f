"""Reading a history: one JSON object a line, appended while the experiment ran.

The kinds, and who says them (``source``):

| kind | source | facts |
|---|---|---|
| begin | client | experiment, seed, jobs |
| submit | client | key, application, parameters |
| acknowledged | client | key, job_id |
| rejected | client | key, code, details |
| terminal | client | job_id, state, seq: an end that a follower was told of |
| start, end, published | host | job_id, attempt, runner_id, host: lines of the hosts' own ledgers |
| fault, recovered | injector | number, what |
| step | upgrade | service, what: a replica is drained or started |
| expected | second run | job_id, files: checksums of the same job run outside the gateway |
| record | store | job_id, state, attempts, publications, manifest: the job in the end |
| finish | client | jobs: how many were acknowledged |

Every line has ``monotonic`` (seconds, of the process that wrote the history) and ``wall`` (seconds
since 1970).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REQUIRED: dict[str, tuple[str, ...]] = {
    "begin": ("experiment", "seed", "jobs"),
    "submit": ("key",),
    "acknowledged": ("key", "job_id"),
    "rejected": ("key", "code"),
    "terminal": ("job_id", "state", "seq"),
    "start": ("job_id", "attempt", "runner_id"),
    "end": ("job_id", "attempt", "runner_id"),
    "published": ("job_id", "attempt", "runner_id"),
    "fault": ("number", "what"),
    "recovered": ("number", "what"),
    "step": ("service", "what"),
    "expected": ("job_id", "files"),
    "record": ("job_id", "state", "attempts", "publications"),
    "finish": ("jobs",),
}


class HistoryError(Exception):
    """A history that can't be judged; names the file, the line and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a history.

    Attributes:
        number: Its number in the file, from 1.
        kind: What it tells.
        facts: All of it.
    """

    number: int
    kind: str
    facts: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]


def read(path: Path) -> list[Line]:
    """All lines of a history.

    Raises:
        HistoryError: it is not there, torn, or a line lacks what its kind needs.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"{path} can't be read: {error}") from error
    if not text.endswith("\n"):
        raise HistoryError(f"{path} is empty or its last line is torn")
    return list(_lines(path, text))


def _lines(path: Path, text: str) -> Iterator[Line]:
    clock = float("-inf")
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            facts = json.loads(line)
            kind = facts["kind"]
            missing = {"monotonic", "wall", *REQUIRED[kind]} - facts.keys()
            at = float(facts.get("monotonic", clock))
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryError(f"{path}:{number} can't be read: {error!r}") from error
        if missing:
            raise HistoryError(f"{path}:{number}: {kind} lacks {', '.join(sorted(missing))}")
        if at < clock:
            raise HistoryError(f"{path}:{number} was written before the line above it")
        clock = at
        yield Line(number, kind, facts)
