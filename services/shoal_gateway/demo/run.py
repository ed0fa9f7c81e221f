"""Runs the demo: fleet, jobs, faults, checks, report."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shoal_gateway.client import TERMINAL, ChecksumError, Gateway, state_name
from shoal_gateway.convert import unix
from shoal_gateway.demo import check, second_run
from shoal_gateway.demo.faults import Injector, plan
from shoal_gateway.demo.plot import draw
from shoal_gateway.demo.second_run import Case
from shoal_gateway.experiments.lab import (
    console,
    fresh_fleet,
    logged,
    observed,
    retry_lines,
    say_where,
)
from shoal_gateway.fleet import Fleet, FleetError

logger = logging.getLogger(__name__)

# Without this much time a run has failed: nothing may hang for ever.
PATIENCE = 600.0
SAMPLE = 3
APPLICATIONS = {"local": "climate@2.0", "local-legacy": "climate@1.0"}


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that the gateway acknowledged."""

    job_id: str
    case: Case


def demonstrate(jobs: int, seed: int, out: Path, *, tls: bool = False) -> int:
    """Runs the demo; 0 when every job succeeded exactly once and the run proved something."""
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    observations = observed()
    with logged(out / "client.log"):
        try:
            with fresh_fleet(out / "fleet", tls=tls) as fleet:
                report = _run(fleet, jobs, seed, out, observations)
        except Exception as error:
            logger.exception("the demo failed")
            console.print(f"the demo failed: {error}", style="red", markup=False)
            say_where(out)
            return 1
    path = out / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for problem in report["problems"][:20]:
        console.print(problem, style="red", markup=False)
    proved = report["attempts_lost"] >= 1 and report["retries"] >= 1
    if not proved:
        console.print(
            f"attempts lost: {report['attempts_lost']}, retries: {report['retries']}; both must be "
            "at least 1, else the faults hit nothing and the run has proved nothing",
            style="red",
        )
    console.print(
        f"killed: {', '.join(report['events_killed'])}; attempts lost: {report['attempts_lost']}; "
        f"retries: {report['retries']}; {report['seconds']:.0f} s",
        style="dim",
        markup=False,
    )
    console.print(f"{path}  {out / 'throughput.png'}", style="dim", markup=False, soft_wrap=True)
    good = bool(report["good"]) and proved
    if not good:
        say_where(out)
    # The last word, on standard output.
    Console().print(report["line"], highlight=False)
    return 0 if good else 1


def _run(fleet: Fleet, jobs: int, seed: int, out: Path, observations: Path) -> dict[str, Any]:
    rng = random.Random(seed)  # noqa: S311 - replayable, not secret
    with fleet.directory_of() as directory:
        gateway = Gateway(directory, "demo")
        began, wall = time.monotonic(), time.time()
        submissions = _submit(gateway, jobs, seed, observations)
        run = _Follower(gateway, [each.job_id for each in submissions])
        injector = Injector(
            fleet,
            directory,
            plan(rng),
            run.share,
            began=began,
            rng=random.Random(seed + 1),  # noqa: S311
        )
        run.on_end = injector.moved
        run.start()
        injector.start()
        try:
            run.wait(PATIENCE)
            injector.finish(60.0)
        finally:
            injector.stop()
        if injector.error is not None:
            raise FleetError(f"a fault could not be injected: {injector.error}")
        seconds = run.last - wall
        console.print("all ended; checking every file against a second run …", style="dim")
        verdict = _check(fleet, gateway, submissions, observations, rng)
    successes = [at - wall for at in run.successes]
    logs = [*fleet.layout.logs(), out / "client.log"]
    refused, retries = retry_lines(logs)
    replicas, hosts = len(injector.replicas_killed), len(injector.hosts_killed)
    title = f"{jobs} jobs; {replicas} replicas and {hosts} host killed"
    draw(out / "throughput.png", successes, injector.marks, seconds, title)
    return {
        **verdict.document(),
        "good": verdict.good,
        "line": verdict.line(),
        "replicas_killed": replicas,
        "hosts_killed": hosts,
        "retries": retries,
        "refusals_sent_elsewhere": refused,
        "seconds": round(seconds, 2),
        "jobs_per_second": round(verdict.succeeded / seconds, 3) if seconds > 0.0 else 0.0,
        "seed": seed,
        "events_killed": [*injector.replicas_killed, *injector.hosts_killed],
        "events": [
            {"at": round(mark.at, 2), "what": mark.label, "fault": mark.fault}
            for mark in injector.marks
        ],
    }


def _submit(gateway: Gateway, jobs: int, seed: int, observations: Path) -> list[Submission]:
    stored = gateway.upload(observations)
    submissions = []
    for number in range(jobs):
        # A fifth of the jobs needs the old library.
        flavor = "local-legacy" if number % 5 == 4 else "local"
        case = Case(flavor, month=number % 12 + 1, seed=seed * 100_000 + number)
        job = gateway.submit(
            APPLICATIONS[flavor],
            inputs={"observations.csv": stored},
            parameters={"month": str(case.month), "seed": str(case.seed)},
            key=f"demo-{seed}-{number}",
        )
        submissions.append(Submission(job.id, case))
    return submissions


class _Follower:
    """Follows the jobs to their ends, through the deaths of the replicas that tell of them."""

    def __init__(self, gateway: Gateway, ids: list[str]) -> None:
        self._gateway = gateway
        self._open = set(ids)
        self._total = len(ids)
        self._all = threading.Event()
        self._error: Exception | None = None
        self.successes: list[float] = []
        self.last = 0.0
        self.on_end: Any = None

    def share(self) -> float:
        """How many of the jobs have ended, 0 to 1."""
        return 1.0 - len(self._open) / self._total

    def start(self) -> None:
        """Begins to follow."""
        threading.Thread(target=self._follow, name="follower", daemon=True).start()

    def wait(self, timeout: float) -> None:
        """Waits for all ends and shows how far they are.

        Raises:
            TimeoutError: some had not ended in time.
        """
        until = time.monotonic() + timeout
        with Progress(
            TextColumn("jobs ended"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        ) as bar:
            task = bar.add_task("", total=self._total)
            while not self._all.wait(0.2):
                bar.update(task, completed=self._total - len(self._open))
                if self._error is not None:
                    raise self._error
                if time.monotonic() > until:
                    raise TimeoutError(f"{len(self._open)} jobs had not ended in {timeout:g} s")
            bar.update(task, completed=self._total)

    def _follow(self) -> None:
        try:
            for event in self._gateway.watch():
                at = unix(event.at)
                if event.state in TERMINAL and event.job_id in self._open:
                    self._open.discard(event.job_id)
                    self.last = max(self.last, at)
                    if state_name(event.state) == "SUCCEEDED":
                        self.successes.append(at)
                    self.on_end()
                    if not self._open:
                        self._all.set()
                        return
        except Exception as error:  # noqa: BLE001 - raised where somebody waits
            self._error = error


def _check(
    fleet: Fleet,
    gateway: Gateway,
    submissions: list[Submission],
    observations: Path,
    rng: random.Random,
) -> check.Verdict:
    project = fleet.layout.project
    cases = {each.job_id: each.case for each in submissions}
    expected = second_run.checksums(project, observations, cases)
    sample = rng.sample(submissions, min(SAMPLE, len(submissions)))
    made = second_run.by_command(project, observations, [each.case for each in sample])
    for submission, files in zip(sample, made, strict=True):
        if files != expected[submission.job_id]:
            raise second_run.SecondRunError(
                f"{submission.case} makes other files by command ({files}) than in the batch "
                f"({expected[submission.job_id]})"
            )
    outcomes = [_outcome(gateway, each.job_id, fleet.directory / "fetched") for each in submissions]
    lines = [each for path in fleet.layout.ledgers() for each in _read_ledger(path)]
    return check.judge(
        [each.job_id for each in submissions],
        outcomes,
        [entry for event, entry in lines if event == "start"],
        [entry for event, entry in lines if event == "published"],
        expected,
    )


def _outcome(gateway: Gateway, job_id: str, directory: Path) -> check.Outcome:
    found = gateway.get(job_id)
    state = state_name(found.job.state)
    if state != "SUCCEEDED":
        return check.Outcome(job_id, state)
    manifest = gateway.outputs(job_id)
    files = {}
    for file in manifest.files:
        # Fetched and hashed: the manifest's word alone says nothing of what is stored.
        try:
            gateway.download(job_id, file, directory / job_id / file.name)
        except (ChecksumError, grpc.RpcError) as error:
            logger.warning("job %s: %s can't be fetched as published: %s", job_id, file.name, error)
            files[file.name] = "not what was published"
        else:
            files[file.name] = file.object.sha256
    published = sum(state_name(event.state) == "SUCCEEDED" for event in found.events)
    return check.Outcome(
        job_id,
        state,
        publications=(manifest.runner_id,) * published,
        files=files,
    )


def _read_ledger(path: Path) -> Iterator[tuple[str, check.Entry]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        yield entry["event"], check.Entry(entry["job_id"], entry["runner_id"])
