"""The capacity experiment's report: what was measured, and what its words mean. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from shoal_gateway.experiments import capacity_analysis as analysis
from shoal_gateway.experiments.capacity_analysis import Load, Result
from shoal_gateway.experiments.capacity_plan import BURN, FLEETS, NOOP, SECONDS, SLOTS, WAIT, Step

Row = tuple[Step, Result, Load, list[dict[str, Any]]]

# Processors that others may use before a step is said to be disturbed; what jobs leave unaccounted
# when they end is among them.
DISTURBED = 0.4

NAMES = {
    WAIT: f"jobs that wait {SECONDS[WAIT]:g} s",
    BURN: f"jobs that compute for {SECONDS[BURN]:g} s",
    NOOP: "functions that do nothing, in warm workers",
}


def definitions(patience: float) -> dict[str, str]:
    """What the words of the report mean."""
    return {
        "N": "jobs of a step. In a step by rate they arrive one by one; in a step by N all come at "
        "once, so that N users wait at the same time, each for one job",
        "offered": "arrivals per second of the seeded Poisson clock, as they came: (N - 1) / time "
        "between the first arrival and the last. It does not wait for the fleet",
        "achieved": "successes per second. By rate (S - 1) / time between the first success and "
        "the last, or the first arrival and the last where that is longer, so that the last job's "
        "duration counts on neither side; by N, S / time from the arrival to the last success",
        "success": f"SUCCEEDED, and seen by the client at most {patience:g} s after the arrival",
        "failure": f"rejected at submit, not SUCCEEDED, or later than {patience:g} s",
        "latency": "from the scheduled arrival to the end as the client sees it, of all that "
        "SUCCEEDED, late ones too",
        "knee": f"between the highest offered rate that a fleet kept up with, and the next: "
        f"achieved and succeeded are at least {analysis.KEEPS_UP:.0%} of offered",
        "saturated": f"{analysis.FULL:.0%} of the machine's processors busy, or of one processor "
        "by one replica (a Python process has no more), or "
        f"{analysis.SLOTS_FULL:.0%} of the slots of the app managers in use on average; or, with "
        "none of these, jobs wait while slots and processors are free: then it is the dispatch",
        "slots": f"{SLOTS} for each app manager; one of the flavor on each host",
        "processors": "mean over the step, by /proc: each service's own processes; 'jobs' are the "
        "managers' workers, supervisors and jobs; what is left of the "
        "machine's is 'others'",
    }


def line(step: Step, found: Result) -> str:
    """A step in one line."""
    p95 = f"p95 {found.latency['p95']:.2f} s" if found.latency else "no success"
    course = f"offered {found.offered:.2f}/s" if step.rate else f"N = {step.jobs} at once"
    failed = f", {found.failed} failed" if found.failed else ""
    return f"{step.name}: {course}, achieved {found.achieved:.2f}/s, {p95}{failed}"


def report(rows: Sequence[Row], facts: dict[str, Any]) -> dict[str, Any]:
    """The whole report.

    Args:
        rows: Each step with its result, its load and who served it.
        facts: What the checker says, what was asked for, and where it ran.
    """
    series = {
        f"{kind}-{replicas}": _series([row for row in rows if _of(row, kind, replicas)])
        for kind in (WAIT, BURN, NOOP)
        for replicas in FLEETS
        if any(_of(row, kind, replicas) for row in rows)
    }
    failures: Counter[str] = Counter()
    for _, found, _, _ in rows:
        failures += Counter(found.failures)
    return {
        "experiment": "capacity",
        **facts,
        "offered": sum(found.jobs for _, found, _, _ in rows),
        # The checker's "succeeded" knows no patience: a late success is one, and no result in time.
        "succeeded_in_time": sum(found.succeeded for _, found, _, _ in rows),
        "not_in_time": dict(failures),
        "findings_of_load": _findings(series) + _disturbances(rows),
        "definitions": definitions(facts["patience_seconds"]),
        "series": series,
    }


def _of(row: Row, kind: str, replicas: int) -> bool:
    return row[0].kind == kind and row[0].replicas == replicas


def _series(rows: Sequence[Row]) -> dict[str, Any]:
    """Steps of one kind in one fleet."""
    by_rate = [row for row in rows if row[0].rate]
    bursts = [row for row in rows if not row[0].rate]
    knee = analysis.knee(
        (found.offered, found.achieved, found.succeeded / found.jobs) for _, found, _, _ in by_rate
    )
    failing = analysis.first_failing((found.jobs, found.failed) for _, found, _, _ in bursts)
    beyond = [row for row in by_rate if knee.above is not None and row[1].offered >= knee.above]
    return {
        "what": NAMES[rows[0][0].kind],
        "replicas": rows[0][0].replicas,
        "knee": {"below": knee.below, "above": knee.above, "ceiling": knee.ceiling},
        # At the first rate that was too much, where one thing is full and not yet all.
        "saturated": analysis.saturated(beyond[0][2]) if beyond else [],
        "first_failing_n": failing,
        "failing_saturated": next(
            (analysis.saturated(row[2]) for row in bursts if row[1].jobs == failing), []
        ),
        "most_n": max((found.jobs for _, found, _, _ in bursts), default=None),
        "by_rate": [_document(*row) for row in by_rate],
        "by_n": [_document(*row) for row in bursts],
    }


def _document(
    step: Step, found: Result, load: Load, spread: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "step": step.name,
        "rate": step.rate,
        **found.document(),
        "load": load.document(),
        "saturated": analysis.saturated(load),
        "disturbed": _disturbed(load),
        "spread": spread,
    }


def _disturbed(load: Load) -> bool:
    return load.services.get(analysis.OTHERS, 0.0) > DISTURBED


def _disturbances(rows: Sequence[Row]) -> list[str]:
    """A warning where the machine was not ours alone."""
    names = [step.name for step, _, load, _ in rows if _disturbed(load)]
    if not names:
        return []
    return [
        f"others used more than {DISTURBED:g} processors of this machine during "
        f"{len(names)} of {len(rows)} steps, so these show less than it can do: {', '.join(names)}"
    ]


def _findings(series: dict[str, Any]) -> list[str]:
    """What a reader wants to know first, a sentence each."""
    found = []
    for each in series.values():
        found.append(f"{_whose(each)}: {_knee(each)}")
        if each["by_n"]:
            found.append(f"{_whose(each)}, all at once: {_failing(each)}")
    for kind in (WAIT, BURN, NOOP):
        few, many = (series.get(f"{kind}-{replicas}") for replicas in FLEETS)
        # What kept up with all it was offered has not shown what it can do.
        if few and many and few["knee"]["above"] and many["knee"]["above"]:
            ratio = many["knee"]["ceiling"] / few["knee"]["ceiling"]
            found.append(
                f"{NAMES[kind]}: {FLEETS[1]} replicas of each service do {ratio:.2f} times what "
                f"{FLEETS[0]} does"
            )
    return found


def _whose(series: dict[str, Any]) -> str:
    return f"{series['what']}, {series['replicas']} of each service"


def _knee(series: dict[str, Any]) -> str:
    knee = series["knee"]
    ceiling = f"at most {knee['ceiling']:.2f} successes/s"
    if knee["above"] is None:
        return f"kept up with all of up to {knee['below']:.2f}/s, so no knee was reached; {ceiling}"
    why = "; ".join(series["saturated"]) or "nothing that is measured was full"
    below = "none" if knee["below"] is None else f"{knee['below']:.2f}/s"
    return f"the knee is between {below} and {knee['above']:.2f}/s; {ceiling}; full: {why}"


def _failing(series: dict[str, Any]) -> str:
    if series["first_failing_n"] is None:
        return f"no job failed up to N = {series['most_n']}"
    why = "; ".join(series["failing_saturated"]) or "nothing that is measured was full"
    return f"jobs fail from N = {series['first_failing_n']} on; full: {why}"
