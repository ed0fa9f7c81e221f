"""The failure experiment on EC2: random instances of a fleet are stopped, started and terminated.

Only instances with exactly the fleet's tag are touched (`shoal_gateway.aws.instances` looks again
before each call), one at a time, and never the last one that runs. The hosts' ledgers stay on the
hosts, so the checker is not asked: that every job has succeeded once is the store's word, and its
outputs are fetched and compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from shoal.directory import Directory
from shoal.errors import ShoalError
from shoal_gateway.aws.errors import AwsError
from shoal_gateway.aws.instances import Ec2Fleet, Instance
from shoal_gateway.client import Gateway
from shoal_gateway.experiments import collect, workload
from shoal_gateway.experiments.client import Client
from shoal_gateway.experiments.faults import Fault, Injector, spread
from shoal_gateway.experiments.history import History
from shoal_gateway.experiments.lab import console, logged, progress_bar, read_history

logger = logging.getLogger(__name__)

KINDS = ("stop", "start", "terminate")
# Seconds that a job naps.
NAPS = (0.5, 3.0)
# Between looks at an instance or a group, seconds.
LOOK = 5.0


@dataclass(frozen=True, slots=True)
class Ec2Settings:
    """An experiment on EC2.

    Attributes:
        fleet: Name of the fleet: its tag ``shoal:fleet``.
        role: Instances of this role are victims.
        kinds: What happens to them, in turn: of `KINDS`.
        faults: How many.
        seconds: In which they begin.
        down: Seconds that a stopped instance stays so.
        patience: Seconds in which a fleet has to be whole again, and the jobs to end.
        seed: Of times and victims.
        jobs: Naps that are submitted meanwhile; 0: none.
        out: Where history and report go.
    """

    fleet: str
    role: str
    kinds: tuple[str, ...]
    faults: int
    seconds: float
    down: float
    patience: float
    seed: int
    jobs: int
    out: Path

    def document(self) -> dict[str, Any]:
        """For history and report."""
        return asdict(self) | {"out": str(self.out)}


class Ec2Breaker:
    """Breaks instances of a fleet, and has them mended.

    Args:
        fleet: Whose.
        role: Only these.
        rng: Chooses victims.
        patience: Seconds until the fleet has to be whole again.
        clock: Monotonic seconds.
        sleep: Waits.

    Attributes:
        victims: Ids, in order.
        down: Ids of those that were stopped and not started again yet.
    """

    def __init__(
        self,
        fleet: Ec2Fleet,
        role: str,
        rng: random.Random,
        *,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._fleet = fleet
        self._role = role
        self._rng = rng
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self.victims: list[str] = []
        self.down: list[str] = []

    def breakage(self, kind: str) -> AbstractContextManager[str]:
        """What a kind of fault does: of `KINDS`."""
        match kind:
            case "stop":
                return self.stopped()
            case "start":
                return self.started()
            case "terminate":
                return self.terminated()
            case _:
                raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")

    def choose(self, kind: str) -> Instance:
        """A victim.

        Raises:
            AwsError: there is none that may be one.
        """
        found = self._fleet.instances(self._role)
        running = [each for each in found if each.state == "running"]
        whose = f"of fleet {self._fleet.name!r} and role {self._role!r}"
        if kind == "start":
            stopped = [each for each in found if each.state == "stopped"]
            if not stopped:
                raise AwsError(f"no instance {whose} is stopped, so none can be started")
            return self._rng.choice(stopped)
        if len(running) < 2:
            raise AwsError(
                f"{len(running)} instances {whose} run, and one has to stay: nothing is broken"
            )
        # Who is in no group has nobody to replace it.
        able = running if kind == "stop" else [each for each in running if each.group]
        if not able:
            raise AwsError(f"no instance {whose} is in an autoscaling group that would replace it")
        return self._rng.choice(able)

    @contextmanager
    def stopped(self) -> Iterator[str]:
        """An instance is stopped, and started again, unless its group has replaced it by then."""
        victim = self._victim("stop")
        self._fleet.stop(victim)
        self.down.append(victim.id)
        try:
            yield f"{victim.id} ({victim.zone}) stopped"
        finally:
            self._started_again(victim)
            self.down.remove(victim.id)
            self._whole(victim)

    @contextmanager
    def started(self) -> Iterator[str]:
        """An instance that somebody has stopped is started."""
        victim = self._victim("start")
        self._fleet.start(victim)
        yield f"{victim.id} ({victim.zone}) started"
        self._until(lambda: self._state(victim) == "running", f"{victim.id} runs")

    @contextmanager
    def terminated(self) -> Iterator[str]:
        """An instance is terminated; its group replaces it."""
        victim = self._victim("terminate")
        self._fleet.terminate(victim)
        yield f"{victim.id} ({victim.zone}) terminated"
        self._whole(victim)

    def _victim(self, kind: str) -> Instance:
        victim = self.choose(kind)
        self.victims.append(victim.id)
        return victim

    def _state(self, instance: Instance) -> str:
        return self._fleet.instance(instance.id).state

    def _started_again(self, victim: Instance) -> None:
        """Starts what was stopped; a group may be about to terminate it instead."""
        gone = ("shutting-down", "terminated")
        self._until(lambda: self._state(victim) in ("stopped", *gone), f"{victim.id} has stopped")
        if self._state(victim) == "stopped":
            try:
                self._fleet.start(victim)
            except AwsError as error:
                if self._state(victim) not in gone:
                    raise
                logger.info("%s was replaced by its group meanwhile: %s", victim.id, error)

    def _whole(self, victim: Instance) -> None:
        """Waits until as many run as before: in its group, or the victim itself."""
        if not victim.group:
            self._until(lambda: self._state(victim) == "running", f"{victim.id} runs")
            return
        self._until(lambda: self._fleet.whole(victim.group), f"group {victim.group} is whole again")

    def _until(self, true: Callable[[], bool], what: str) -> None:
        until = self._clock() + self._patience
        while not true():
            if self._clock() > until:
                raise AwsError(f"after {self._patience:g} s it is still not so that {what}")
            self._sleep(LOOK)


def schedule(settings: Ec2Settings, breaker: Ec2Breaker) -> list[tuple[str, Fault]]:
    """What is broken when: kinds in turn, shuffled; times spread over the whole."""
    rng = random.Random(settings.seed)  # noqa: S311 - replayable, not secret
    kinds = [settings.kinds[number % len(settings.kinds)] for number in range(settings.faults)]
    rng.shuffle(kinds)

    def fault(kind: str, at: float) -> Fault:
        return Fault(at, settings.down, lambda: breaker.breakage(kind))

    times = spread(rng, settings.faults, settings.seconds)
    return [(kind, fault(kind, at)) for kind, at in zip(kinds, times, strict=True)]


def dry_run(settings: Ec2Settings, fleet: Ec2Fleet) -> list[dict[str, Any]]:
    """What would be done when, with the instances that there are now; nothing is touched.

    Raises:
        AwsError: AWS does not say, or a fault would find no victim.
    """
    breaker = _breaker(settings, fleet)
    found = []
    for kind, fault in schedule(settings, breaker):
        victim = breaker.choose(kind)
        found.append({"at": round(fault.at, 1), "kind": kind, "instance": victim.id,
                      "zone": victim.zone, "group": victim.group})  # fmt: skip
    return found


def run(settings: Ec2Settings, fleet: Ec2Fleet, directory: Directory | None) -> int:
    """Runs the experiment; its exit code.

    Args:
        settings: Its size and place.
        fleet: Whose instances are broken.
        directory: The fleet's, for jobs; None where none are submitted.
    """
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "outputs", ignore_errors=True)
    history = History(out / "history.jsonl")
    breaker = _breaker(settings, fleet)
    try:
        with logged(out / "client.log"):
            report = _body(settings, breaker, directory, history)
    except (AwsError, ShoalError, OSError, TimeoutError, grpc.RpcError) as error:
        console.print(f"the experiment failed: {error}", style="red", markup=False)
        return 1
    finally:
        for each in breaker.down:
            console.print(
                f"{each} stays stopped: aws ec2 start-instances --instance-ids {each}",
                style="red",
                markup=False,
            )
        history.close()
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for problem in report["problems"][:20]:
        console.print(problem, style="red", markup=False)
    console.print(report["line"], highlight=False)
    return 1 if report["problems"] else 0


def _breaker(settings: Ec2Settings, fleet: Ec2Fleet) -> Ec2Breaker:
    rng = random.Random(settings.seed + 1)  # noqa: S311 - replayable, not secret
    return Ec2Breaker(fleet, settings.role, rng, patience=settings.patience)


def _body(
    settings: Ec2Settings, breaker: Ec2Breaker, directory: Directory | None, history: History
) -> dict[str, Any]:
    history.note("begin", "client", experiment="instances", **settings.document())
    injector = Injector(history, [fault for _, fault in schedule(settings, breaker)])
    tasks = workload.naps(settings.jobs, settings.seed, "instances", seconds=NAPS)
    client = None
    if directory is not None and tasks:
        client = Client(Gateway(directory, "instances"), history, {})
        rng = random.Random(settings.seed)  # noqa: S311 - as above
        client.start(tasks, workload.arrivals(len(tasks), settings.seconds, rng))
    injector.start()
    try:
        injector.finish(settings.seconds + settings.faults * (settings.down + settings.patience))
        problems = []
        if client is not None and directory is not None:
            with progress_bar() as bar:
                task = bar.add_task("jobs ended", total=len(tasks))
                client.wait(
                    settings.seconds + settings.patience,
                    lambda done, total: bar.update(task, completed=done, total=total),
                )
            gateway = Gateway(directory, "instances")
            problems = _judged(gateway, client, tasks, history, settings.out)
    finally:
        injector.stop()
    acknowledged = len(client.acknowledged) if client else 0
    history.note("finish", "client", jobs=acknowledged)
    events = [
        {"number": each.number, "what": each.what, "at": round(each.at, 2),
         "until": round(each.until, 2)}
        for each in injector.happened
    ]  # fmt: skip
    line = f"{len(events)} faults; {acknowledged} jobs acknowledged, {len(problems)} problems"
    return {
        "experiment": "instances",
        **settings.document(),
        "victims": breaker.victims,
        "events": events,
        "problems": problems,
        "line": line,
    }


def _judged(
    gateway: Gateway,
    client: Client,
    tasks: Sequence[workload.Task],
    history: History,
    out: Path,
) -> list[str]:
    """What is wrong with the jobs: one sentence for each that is not as it must be."""
    jobs = client.acknowledged
    collect.records(gateway, history, jobs.values(), out / "outputs", lambda *_: None)
    records = {line["job_id"]: line for line in read_history(out) if line["kind"] == "record"}
    problems = []
    expected = workload.expected(tasks, project=Path(), observations=Path())
    for key, files in expected:
        if key not in jobs:
            problems.append(f"{key} was never acknowledged")
            continue
        id_ = jobs[key]
        record = records.get(id_)
        if record is None or record["state"] != "SUCCEEDED" or len(record["publications"]) != 1:
            state = record and (record["state"], record["publications"])
            problems.append(f"job {id_} has not succeeded once: {state}")
            continue
        for name, sha256 in files.items():
            path = out / "outputs" / id_ / name
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                problems.append(f"job {id_}: {name} is not what it must be")
    return problems
