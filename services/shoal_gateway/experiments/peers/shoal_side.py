"""Shoal's side: a fleet with one replica of each service, and two workers, on each host."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from shoal_gateway.client import TERMINAL, Gateway, Submission
from shoal_gateway.experiments.peers.sides import WORKERS, Meter, Round, children
from shoal_gateway.fleet.fleet import Fleet
from shoal_protos.gateway.model.v1 import job_pb2

# Who submit, where each job is submitted by itself.
SUBMITTERS = 64
MANAGER = "local-1"
HOST = "host-1"


class ShoalSide:
    """A fleet that runs.

    Args:
        fleet: It.
        gateway: The way to it.
    """

    name = "Shoal"

    def __init__(self, fleet: Fleet, gateway: Gateway) -> None:
        self.fleet = fleet
        self.gateway = gateway

    def pid(self, replica: str) -> int:
        """A replica's process."""
        process = self.fleet.state.replicas[replica].process
        if process is None:
            raise RuntimeError(f"{replica} does not run")
        return process.pid

    def meter(self) -> Meter:
        """CPU time of all that takes part."""
        replicas = {name: [self.pid(name)] for name in self.fleet.state.replicas}
        workers = children(self.pid(MANAGER))
        return Meter({**replicas, "workers": workers, "client": [os.getpid()]})

    def run(self, jobs: int, *, single: bool) -> Round:
        """Has so many no-op jobs done."""
        meter = self.meter()
        began = time.perf_counter()
        ids, first = self.submit(jobs, single=single)
        submitted = time.perf_counter() - began
        states = dict(self.ends(ids, first))
        done = Round(jobs, submitted, time.perf_counter() - began, meter.per_job(jobs))
        bad = sum(state != job_pb2.STATE_SUCCEEDED for state in states.values())
        if bad:
            raise RuntimeError(f"{bad} of {jobs} no-op jobs did not succeed, so their rate is none")
        return done

    def submit(
        self,
        jobs: int,
        *,
        single: bool = False,
        application: str = "noop",
        parameters: Mapping[str, str] | None = None,
    ) -> tuple[set[str], int]:
        """Submits jobs; their ids, and the cursor before the first of them."""
        wanted = Submission(application, parameters or {})
        if single:
            with ThreadPoolExecutor(SUBMITTERS) as submitters:
                made = submitters.map(
                    lambda each: (
                        self.gateway.submit(
                            each.application, inputs={}, parameters=each.parameters
                        ).id
                    ),
                    itertools.repeat(wanted, jobs),
                )
                ids = list(made)
        else:
            items = self.gateway.submit_many([wanted] * jobs)
            refused = [item.error for item in items if item.error]
            if refused:
                raise RuntimeError(f"{len(refused)} jobs were not accepted: {refused[0]}")
            ids = [item.id for item in items]
        # The order of submits by threads is not that of their answers.
        events = (self.gateway.get(each).events[0].seq for each in ids[: SUBMITTERS + 1])
        return set(ids), min(events) - 1

    def ends(self, ids: set[str], after: int) -> Iterator[tuple[str, int]]:
        """Job and state of each terminal record, as it is written, until all have one."""
        left = set(ids)
        for event in self.gateway.watch(after=after, states=sorted(TERMINAL)):
            if event.job_id in left:
                left.remove(event.job_id)
                yield event.job_id, event.state
                if not left:
                    return


@contextmanager
def running(directory: Path, *, hosts: int = 1) -> Iterator[ShoalSide]:
    """A fleet in a directory, until the block ends; its store stays."""
    fleet = Fleet(directory)
    fleet.up(hosts=hosts, slots=WORKERS)
    try:
        with fleet.directory_of() as found:
            yield ShoalSide(fleet, Gateway(found, "bench"))
    finally:
        fleet.down()


def rates(rounds: Sequence[Round]) -> list[float]:
    """Jobs per second of each."""
    return [each.rate for each in rounds]
