"""The paper's time series of failures, and what the jobs notice of them: nothing.

Events 1 to 5 are those of the paper's figure 8 (its fifth and sixth are the failure and the
recovery of a leader, here the begin and the end of one); the last, all servers at once, is ours.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from shoal.testing import ZooKeeperServer
from shoal_gateway.experiments.breakages import Breaker
from shoal_gateway.experiments.ensemble.load import BUCKET, Counted
from shoal_gateway.experiments.faults import Fault, Happened

# Share of reads, sessions, and operations a second of each: a load that the machine bears beside
# the jobs, so that what is seen are the failures and not the machine's end.
READS, SESSIONS, RATE, WINDOW = 0.7, 10, 150.0, 40
# Seconds before an event, whose median is what it is compared with.
BEFORE = 10.0
# An event can be felt for so long after its end, seconds.
AFTER = 8.0


@dataclass(frozen=True, slots=True)
class Moment:
    """An event to come.

    Attributes:
        at: When, as a share of the arrivals' time.
        seconds: How long.
        what: A method of `Members`, or of the breaker.
    """

    at: float
    seconds: float
    what: str


FULL = (
    Moment(0.08, 12.0, "follower"),
    Moment(0.20, 12.0, "follower"),
    Moment(0.32, 12.0, "leader"),
    Moment(0.45, 15.0, "two_followers"),
    Moment(0.60, 15.0, "leader"),
    Moment(0.76, 30.0, "all"),
)
SMALL = (Moment(0.15, 1.0, "follower"), Moment(0.35, 1.0, "leader"), Moment(0.6, 4.0, "all"))


class Members:
    """Kills servers of an ensemble and starts them again.

    Args:
        servers: All of them.
        breaker: Knows how to kill a leader, and all.
        rng: Chooses followers.
    """

    def __init__(
        self, servers: Sequence[ZooKeeperServer], breaker: Breaker, rng: random.Random
    ) -> None:
        self._servers = servers
        self._rng = rng
        self._before: set[str] = set()
        self._breakages: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
            "follower": self._follower,
            "two_followers": self._two_followers,
            "leader": breaker.leader_killed,
            "all": breaker.zookeeper_killed,
        }

    def schedule(self, moments: Sequence[Moment], seconds: float) -> list[Fault]:
        """The faults of a run whose jobs arrive for so long."""
        return [
            Fault(each.at * seconds, each.seconds, self._breakages[each.what]) for each in moments
        ]

    def _follower(self) -> AbstractContextManager[str]:
        return self._killed(1, "a follower killed")

    def _two_followers(self) -> AbstractContextManager[str]:
        return self._killed(2, "two followers killed")

    @contextmanager
    def _killed(self, count: int, said: str) -> Iterator[str]:
        followers = {each.hosts: each for each in self._servers if each.mode == "follower"}
        # Another one than before where there is another.
        fresh = sorted(set(followers) - self._before)
        chosen = self._rng.sample(fresh if len(fresh) >= count else sorted(followers), count)
        self._before = set(chosen)
        with ExitStack() as stack:
            for name in chosen:
                followers[name].kill()
                stack.callback(followers[name].start)
            yield said


def felt(
    counted: Counted, jobs: Sequence[float], happened: Sequence[Happened], began: float
) -> list[dict[str, Any]]:
    """What ZooKeeper's callers and what the jobs had of each event.

    Args:
        counted: Answers by bucket.
        jobs: When successes were told, seconds after ``began``.
        happened: The events.
        began: Monotonic time of the run's begin.

    Returns:
        For each event: ``operations_before`` (a second, median of the ten seconds before),
        ``operations_meanwhile``, the longest time without an answered write and without any
        answer (``no_write_seconds``, ``no_answer_seconds``, from its begin to some seconds after
        its end), and the jobs that succeeded each second meanwhile.
    """
    told = []
    for each in happened:
        begin, end = began + each.at, began + each.until
        seconds = max(each.until - each.at, BUCKET)
        before = [
            counted.of(moment, moment + 1.0) for moment in _steps(begin - BEFORE, begin - 0.5)
        ]
        told.append({
            "number": each.number,
            "what": each.what,
            "seconds": round(seconds, 2),
            "operations_before": statistics.median(before),
            "operations_meanwhile": round(counted.of(begin, end) / seconds, 1),
            "no_write_seconds": longest_gap([counted.writes], begin, end + AFTER),
            "no_answer_seconds": longest_gap([counted.writes, counted.reads], begin, end + AFTER),
            "jobs_per_second_meanwhile": round(
                sum(each.at <= moment < each.until for moment in jobs) / seconds, 2
            ),
        })  # fmt: skip
    return told


def longest_gap(answers: Sequence[Mapping[int, int]], begin: float, end: float) -> float:
    """The longest time between two times in which no bucket has an answer, seconds."""
    first, last = int(begin / BUCKET), int(end / BUCKET)
    buckets = {bucket for its in answers for bucket in its if first <= bucket < last}
    edges = [first - 1, *sorted(buckets), last]
    return round(max(b - a - 1 for a, b in itertools.pairwise(edges)) * BUCKET, 2)


def per_bucket(
    answers: Mapping[int, int], began: float, seconds: float, width: float
) -> list[float]:
    """Answers a second in each stretch of ``width`` seconds since ``began``."""
    counts = [0] * (int(seconds / width) + 1)
    for bucket, count in answers.items():
        place = int((bucket * BUCKET - began) / width)
        if 0 <= place < len(counts):
            counts[place] += count
    return [count / width for count in counts]


def _steps(begin: float, end: float) -> list[float]:
    return [begin + second for second in range(max(1, int(end - begin)))]
