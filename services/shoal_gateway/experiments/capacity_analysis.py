"""What the history and the meters of a capacity run say: rates, the knee, who saturates. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# A fleet keeps up while this share of what is offered succeeds.
KEEPS_UP = 0.95
# From this share on, something is full.
FULL = 0.9
# Slots are empty between a job's end and the next start, so a full manager's mean is lower.
SLOTS_FULL = 0.75
# What is left of the machine's processors when all that is ours is taken away.
OTHERS = "others on the machine"
# Jobs that wait on average where jobs can't be said to start as they come.
WAITING = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step's jobs.

    Attributes:
        offered: Arrivals per second as they came by the seeded clock; 0 for a burst.
        achieved: Successes per second. By rate: between the first success and the last, or the
            first arrival and the last where that took longer. All at once: from the arrival to
            the last success.
        jobs: N.
        acknowledged: Jobs that the gateway took.
        succeeded: Those that were SUCCEEDED within the patience.
        failures: The others, by reason.
        latency: Seconds from scheduled arrival to observed end of all that SUCCEEDED, in time or
            late: p50, p95, p99, max.
        window: First arrival and last end, monotonic seconds.
    """

    offered: float
    achieved: float
    jobs: int
    acknowledged: int
    succeeded: int
    failures: dict[str, int]
    latency: dict[str, float]
    window: tuple[float, float]

    @property
    def failed(self) -> int:
        """Jobs that did not succeed within the patience."""
        return self.jobs - self.succeeded

    def document(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self) | {"failed": self.failed}


def result(records: Iterable[Mapping[str, Any]], jobs: int, patience: float) -> Result:
    """Judges a step by its history.

    Args:
        records: Of this step alone.
        jobs: How many were to arrive.
        patience: Seconds after which a job has failed, whatever becomes of it.

    Raises:
        ValueError: the history does not hold each arrival once.
    """
    scheduled: dict[int, float] = {}
    acknowledged: set[int] = set()
    ended: dict[int, Mapping[str, Any]] = {}
    failures: Counter[str] = Counter()
    for record in records:
        number = record["number"]
        if record["kind"] == "submit":
            if number in scheduled:
                raise ValueError(f"arrival {number} stands in the history twice")
            scheduled[number] = record["scheduled"]
        elif record["kind"] == "acknowledged":
            acknowledged.add(number)
        elif record["kind"] == "rejected":
            failures[f"rejected: {record['code']}"] += 1
        elif record["kind"] == "terminal":
            ended[number] = record
    if sorted(scheduled) != list(range(jobs)):
        raise ValueError(f"the history has {len(scheduled)} of {jobs} arrivals")
    successes, latencies = [], []
    for number, record in ended.items():
        latency = record["at"] - scheduled[number]
        if record["state"] == "SUCCEEDED":
            latencies.append(latency)
        failure = _failure(record["state"], latency, patience)
        if failure:
            failures[failure] += 1
        else:
            successes.append(record["at"])
    failures += Counter({"no end": len(acknowledged - ended.keys())})
    arrivals = sorted(scheduled.values())
    first = arrivals[0]
    last = max([record["at"] for record in ended.values()] + arrivals)
    spread_out = arrivals[-1] > first
    return Result(
        offered=_per_second(len(arrivals) - 1, arrivals[-1] - first) if spread_out else 0.0,
        achieved=_achieved(successes, arrivals),
        jobs=jobs,
        acknowledged=len(acknowledged),
        succeeded=len(successes),
        failures=dict(failures),
        latency=percentiles(latencies),
        window=(first, last),
    )


def _failure(state: str, latency: float, patience: float) -> str:
    """Why an ended job is no success; empty when it is one."""
    if state != "SUCCEEDED":
        return f"ended {state}"
    return f"later than {patience:g} s" if latency > patience else ""


def _achieved(successes: Sequence[float], arrivals: Sequence[float]) -> float:
    """Successes per second.

    By rate, intervals are counted on both sides, arrivals and ends: so the time that the last job
    takes, which says nothing of the rate, is in neither. Ends that were all seen at the end say
    nothing of it either: nobody can do more than comes.
    """
    if not successes:
        return 0.0
    arriving = max(arrivals) - min(arrivals)
    if arriving > 0.0:
        ending = max(successes) - min(successes)
        return _per_second(len(successes) - 1, max(ending, arriving))
    return _per_second(len(successes), max(successes) - min(arrivals))


def _per_second(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0.0 else 0.0


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and max: each is a value that was seen; nothing when none was."""
    ordered = sorted(values)
    if not ordered:
        return {}
    found = {
        f"p{share}": ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)]
        for share in (50, 95, 99)
    }
    return found | {"max": ordered[-1]}


@dataclass(frozen=True, slots=True)
class Knee:
    """Where a fleet stops to keep up with what it is offered.

    Attributes:
        below: The highest rate that it kept up with; None: not even the lowest.
        above: The lowest rate that it did not keep up with; None: it kept up with all.
        ceiling: The most successes per second at any rate.
    """

    below: float | None
    above: float | None
    ceiling: float


def knee(points: Iterable[tuple[float, float, float]]) -> Knee:
    """Finds the knee of (offered, achieved, share that succeeded).

    A rate is kept up with when successes per second are at least 95 % of it *and* 95 % of the jobs
    succeeded: a short step's backlog may end in time, and a fleet may be fast at few successes.

    Raises:
        ValueError: there is no point.
    """
    ordered = sorted(points)
    if not ordered:
        raise ValueError("a knee needs at least one rate")
    below: float | None = None
    above: float | None = None
    for offered, achieved, share in ordered:
        if achieved < KEEPS_UP * offered or share < KEEPS_UP:
            above = offered
            break
        below = offered
    return Knee(below, above, max(achieved for _, achieved, _ in ordered))


def first_failing(bursts: Iterable[tuple[int, int]]) -> int | None:
    """The smallest N of (N, failed jobs) at which a job failed; None: none did at any."""
    return min((jobs for jobs, failed in bursts if failed), default=None)


@dataclass(frozen=True, slots=True)
class Load:
    """What the meters showed while a step lasted.

    Attributes:
        machine: Processors that were busy with anything, of ``cores``.
        cores: Processors of the machine.
        services: Processors in use by each: services, jobs, ZooKeeper, the load itself.
        busiest: The replica that used most of one processor, and how much.
        slots_used: Mean share of slots with a running job.
        slots: How many there are.
        queued: Mean number of jobs that wait.
        most_queued: The most at any look.
    """

    machine: float
    cores: int
    services: dict[str, float]
    busiest: tuple[str, float]
    slots_used: float
    slots: int
    queued: float
    most_queued: int

    def document(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def saturated(load: Load) -> list[str]:
    """What was full, one sentence each, the cause that explains most first; empty: nothing."""
    found = []
    if load.machine >= FULL * load.cores:
        most = sorted(load.services.items(), key=lambda each: -each[1])[:2]
        who = ", ".join(f"{name} {cores:.2f}" for name, cores in most)
        found.append(
            f"the machine: {load.machine:.2f} of {load.cores} processors are busy, most with {who}"
        )
    name, cores = load.busiest
    if cores >= FULL:
        found.append(f"{name}: one Python process can use one processor, it uses {cores:.2f}")
    if load.slots_used >= SLOTS_FULL:
        found.append(
            f"appmanager: {load.slots_used:.0%} of its {load.slots} slots hold a job, and "
            f"{load.queued:.1f} jobs wait"
        )
    elif load.queued >= WAITING and not found:
        found.append(
            f"dispatch: {load.queued:.1f} jobs wait though only {load.slots_used:.0%} of the "
            f"{load.slots} slots hold a job and processors are free, so what takes long is to "
            "bring the next job to a free slot"
        )
    return found
