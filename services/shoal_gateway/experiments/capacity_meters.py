"""Looks at a fleet while it works: processor time by service, slots in use, jobs that wait."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc

from shoal.directory import Directory
from shoal_gateway.experiments.capacity_analysis import OTHERS, Load
from shoal_gateway.fleet import Fleet, processes
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc

logger = logging.getLogger(__name__)

# Seconds between looks, and for one question.
INTERVAL = 0.5
TIMEOUT = 5.0
# The flavor whose slots the experiment's jobs need.
FLAVOR = "local"
WAITING = (job_pb2.STATE_SUBMITTED, job_pb2.STATE_QUEUED, job_pb2.STATE_LEASED)

JOBS, LOAD, ZOOKEEPER = "jobs", "Locust", "ZooKeeper"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Attributes:
        at: When, monotonic seconds.
        busy: Processor seconds that the machine has spent since its start.
        used: Processor seconds of each process, or group of processes, by name.
        running: Jobs that hold a slot.
        queued: Jobs that wait.
    """

    at: float
    busy: float
    used: dict[str, float]
    running: int
    queued: int


def summary(samples: Sequence[Sample], services: dict[str, str], slots: int, cores: int) -> Load:
    """What a stretch of looks says. Pure.

    Args:
        samples: At least two, ascending.
        services: Service of each name in ``used``; what is missing stands for itself.
        slots: How many there are.
        cores: Of the machine.

    Raises:
        ValueError: there are too few looks to say anything.
    """
    if len(samples) < 2:
        raise ValueError(f"{len(samples)} looks at a fleet are too few: a rate needs two")
    first, last = samples[0], samples[-1]
    seconds = last.at - first.at
    by_name = {
        # What began in between began at nothing, and what has ended has nothing in the last look.
        name: (max(each.used.get(name, 0.0) for each in samples) - first.used.get(name, 0.0))
        / seconds
        for name in last.used
    }
    by_service: dict[str, float] = {}
    for name, share in by_name.items():
        service = services.get(name, name)
        by_service[service] = by_service.get(service, 0.0) + share
    machine = (last.busy - first.busy) / seconds
    by_service[OTHERS] = max(0.0, machine - sum(by_service.values()))
    replicas = {name: share for name, share in by_name.items() if name in services}
    name = max(replicas, key=lambda each: replicas[each])
    return Load(
        machine=machine,
        cores=cores,
        services=by_service,
        busiest=(name, replicas[name]),
        slots_used=sum(each.running for each in samples) / len(samples) / slots,
        slots=slots,
        queued=sum(each.queued for each in samples) / len(samples),
        most_queued=max(each.queued for each in samples),
    )


class Meters:
    """Looks at a fleet twice a second, on a thread of its own, until it is left.

    Args:
        fleet: Whom.
        directory: Of the fleet.
        load: Process id of Locust's leading process.
    """

    def __init__(self, fleet: Fleet, directory: Directory, load: int) -> None:
        state = fleet.state
        self._replicas = [each for each in state.replicas.values() if each.process is not None]
        self.services = {each.id: each.service for each in self._replicas}
        self._load = load
        known = {each.process for each in self._replicas}
        self._zookeeper = [
            process.pid
            for process in processes.marked({processes.FLEET_MARK: state.id})
            if process not in known and _command(process.pid).endswith("java")
        ]
        managers = {each.id for each in self._replicas if each.flavor == FLAVOR}
        self.slots = state.slots * len(managers)
        watch = directory.watch("appmanager")
        watch.wait_known(TIMEOUT)
        # Each by itself: a channel of the SDK would choose one.
        self._channels = [
            grpc.insecure_channel(each.target) for each in watch.replicas() if each.id in managers
        ]
        self._managers = [appmanager_pb2_grpc.AppManagerStub(each) for each in self._channels]
        self._registry = registry_pb2_grpc.RegistryStub(directory.channel("registry"))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meters")
        self._error: Exception | None = None
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for channel in self._channels:
            channel.close()

    def load(self, window: tuple[float, float]) -> Load:
        """What was seen in a stretch of time, monotonic seconds; its edges are a look off.

        Raises:
            RuntimeError: the fleet could not be looked at.
        """
        if self._error is not None:
            raise RuntimeError("the fleet could not be looked at") from self._error
        low, high = window
        inside = [each for each in self.samples if low - INTERVAL <= each.at <= high + INTERVAL]
        return summary(inside, self.services, self.slots, os.cpu_count() or 1)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.samples.append(self._look())
                self._stopping.wait(INTERVAL)
        except Exception as error:
            # Raised where somebody asks for what was seen.
            logger.exception("the meters failed")
            self._error = error

    def _look(self) -> Sample:
        used: dict[str, float] = {}
        jobs = 0.0
        below = _children()
        for replica in self._replicas:
            assert replica.process is not None  # noqa: S101 - only those that run are looked at
            own, ended = _spent(replica.process.pid)
            used[replica.id] = own
            # A manager waits for its supervisors, and they for their jobs: the kernel adds up.
            # Workers, and supervisors whose job runs, are still there.
            jobs += ended + sum(sum(_spent(pid)) for pid in below.get(replica.process.pid, ()))
        used[JOBS] = jobs
        used[LOAD] = sum(_spent(pid)[0] for pid in [self._load, *below.get(self._load, ())])
        used[ZOOKEEPER] = sum(_spent(pid)[0] for pid in self._zookeeper)
        busy = _busy()
        at = time.monotonic()
        asked = [
            each.Status.future(appmanager_pb2.StatusRequest(), timeout=TIMEOUT)
            for each in self._managers
        ]
        counts = self._registry.Summary(registry_pb2.SummaryRequest(), timeout=TIMEOUT).counts
        return Sample(
            at,
            busy,
            used,
            running=sum(len(each.result().running) for each in asked),
            queued=sum(each.jobs for each in counts if each.state in WAITING),
        )


def _spent(pid: int) -> tuple[float, float]:
    """Processor seconds of a process itself, and of the children that it has waited for."""
    fields = [int(each) for each in _fields(pid)[11:15]]
    if not fields:
        return 0.0, 0.0  # ended meanwhile
    return (fields[0] + fields[1]) / TICKS, (fields[2] + fields[3]) / TICKS


def _children() -> dict[int, list[int]]:
    """The children of each process that has any, by one look at all."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))):
            found.setdefault(int(fields[1]), []).append(int(entry.name))
    return found


def _fields(pid: int) -> list[str]:
    """Of ``/proc/PID/stat`` from the state on; empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The command in parentheses may hold anything, so count from its end.
    return text.rpartition(")")[2].split()


def _command(pid: int) -> str:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0])
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _busy() -> float:
    """Processor seconds of the whole machine, idle ones left out."""
    line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS
