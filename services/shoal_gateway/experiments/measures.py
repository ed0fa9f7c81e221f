"""Figures out of a history. Pure."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

SHARES = (0.5, 0.9, 0.95, 0.99, 1.0)

SUCCESS = (
    "A job has succeeded when the gateway acknowledged it and it has exactly one terminal record, "
    "SUCCEEDED; one result, of the last attempt that was begun, under the fence that this attempt "
    "held; and every file of it, as fetched, has the checksum that the same job makes outside the "
    "gateway."
)


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """Nearest-rank percentiles: of 100 values p99 is the 99th; empty of none."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    return {
        f"p{share * 100:g}": round(ordered[math.ceil(share * len(ordered)) - 1], 4)
        for share in SHARES
    }


def per_second(moments: Iterable[float], seconds: float) -> list[int]:
    """How many of the moments lie in each whole second from 0 to ``seconds``."""
    counts = Counter(int(moment) for moment in moments)
    return [counts[second] for second in range(int(seconds) + 1)]


def latencies(
    lines: Sequence[dict[str, Any]], between: tuple[float, float] = (0.0, math.inf)
) -> dict[str, dict[str, float]]:
    """Percentiles of the answers to submits, and of the time from submit to the end was told.

    Args:
        lines: Of a history.
        between: Only of jobs that were first submitted then, in seconds after its begin.
    """
    began = lines[0]["monotonic"] if lines else 0.0
    submitted: dict[str, float] = {}
    answers, jobs = [], []
    keys: dict[str, str] = {}
    ends: dict[str, float] = {}
    for line in lines:
        match line["kind"]:
            case "submit":
                submitted.setdefault(line["key"], line["monotonic"])
            case "acknowledged":
                asked = submitted[line["key"]]
                if between[0] <= asked - began < between[1]:
                    answers.append(line["monotonic"] - asked)
                    keys[line["job_id"]] = line["key"]
            case "terminal":
                ends.setdefault(line["job_id"], line["monotonic"])
    jobs = [ends[job_id] - submitted[key] for job_id, key in keys.items() if job_id in ends]
    return {"submit_seconds": percentiles(answers), "job_seconds": percentiles(jobs)}


def successes(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By job, when its success was told, in seconds after the history's begin."""
    began = lines[0]["monotonic"]
    return {
        line["job_id"]: line["monotonic"] - began
        for line in lines
        if line["kind"] == "terminal" and line["state"] == "SUCCEEDED"
    }


def longest_gap(moments: Iterable[float], seconds: float) -> float:
    """The longest time without any of the moments, in seconds."""
    edges = [0.0, *sorted(moments), seconds]
    return max((after - before for before, after in itertools.pairwise(edges)), default=0)
