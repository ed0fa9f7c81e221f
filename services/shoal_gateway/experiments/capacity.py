"""How many jobs a fleet can do: one replica of each service against three, measured by Locust.

Each step is a Locust run of several processes in an open loop; the next begins when the last one's
jobs have all ended. So every acknowledged job of the run has its end in the history, and the
checker judges them all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console

from shoal.errors import ShoalError
from shoal.testing.installed import ZooKeeperError, free_port
from shoal_gateway.client import Gateway
from shoal_gateway.experiments import (
    capacity_plan,
    capacity_plots,
    capacity_report,
    collect,
    lab,
    measures,
)
from shoal_gateway.experiments.capacity_analysis import Load, Result, result
from shoal_gateway.experiments.capacity_meters import Meters
from shoal_gateway.experiments.capacity_plan import SLOTS, Step
from shoal_gateway.experiments.history import History
from shoal_gateway.experiments.settings import Settings
from shoal_gateway.fleet import Fleet, FleetError
from shoal_gateway.fleet.pginstalled import PostgresError

logger = logging.getLogger(__name__)

OWNER = "capacity"
# Seconds from its arrival after which a job has failed, whatever becomes of it.
PATIENCE = 20.0
PROCESSES = 2
# Seconds after the last arrival that a step's ends are waited for, and that Locust may take beside.
DRAIN, AROUND = 240.0, 60.0


class StepError(Exception):
    """A step could not be measured; its log says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A step and what it showed."""

    step: Step
    result: Result
    load: Load
    spread: list[dict[str, Any]]
    submits: list[dict[str, Any]]
    acknowledged: list[str]


def run(settings: Settings, *, patience: float = PATIENCE, celery: bool = True) -> int:
    """Runs the experiment; its exit code.

    Args:
        settings: Its size and place; ``jobs`` are N of a usual step, and all jobs of a small run.
        patience: Seconds from its arrival after which a job has failed.
        celery: Whether Celery with Redis does the same beside.

    Raises:
        ValueError: so few jobs show nothing.
    """
    steps = (capacity_plan.reduced if settings.small else capacity_plan.full)(settings.jobs)
    out = settings.out.absolute()
    lab.clear(out)
    with lab.logged(out / "client.log"):
        history = History(out / "history.jsonl")
        try:
            report = _run(settings, steps, history, patience)
            compared = beside(settings) if celery else {"left_out": "--no-celery"}
        except (
            FleetError, PostgresError, ZooKeeperError, ShoalError, StepError, OSError,
            subprocess.TimeoutExpired, grpc.RpcError, RuntimeError,
        ) as error:  # fmt: skip
            logger.exception("the experiment failed")
            lab.console.print(f"the experiment failed: {error}", style="red", markup=False)
            return 1
        finally:
            history.close()
    report["celery"] = compared
    path = out / "report.json"
    path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    pictures = capacity_plots.draw_all(out, report)
    for problem in report["problems"][:20]:
        lab.console.print(problem, style="red", markup=False)
    for finding in report["findings_of_load"]:
        lab.console.print(finding, markup=False, highlight=False)
    lab.console.print(
        f"{path} {' '.join(map(str, pictures))}", style="dim", markup=False, soft_wrap=True
    )
    # The last word, on standard output.
    Console().print(report["line"], highlight=False)
    return 0 if report["good"] else 1


def _run(
    settings: Settings, steps: Sequence[Step], history: History, patience: float
) -> dict[str, Any]:
    out = settings.out.absolute()
    began = time.monotonic()
    history.note("begin", "client", experiment="capacity", **settings.document())
    measured: list[Measured] = []
    logs: list[Path] = []
    for replicas in sorted({each.replicas for each in steps}):
        lab.console.print(f"{replicas} of each service", style="dim")
        shape = {"hosts": replicas, "slots": SLOTS, "store": settings.store}
        with lab.fresh_fleet(out / f"fleet-{replicas}", **shape) as fleet:
            for step in (each for each in steps if each.replicas == replicas):
                measured.append(_measure(fleet, step, settings.seed, patience, history))
                said = capacity_report.line(step, measured[-1].result)
                lab.console.print(f"  {said}", markup=False, highlight=False)
            here = [each for each in measured if each.step.replicas == replicas]
            _collect(fleet, here, history, out)
            logs += fleet.layout.logs()
    history.note("finish", "client", jobs=sum(len(each.acknowledged) for each in measured))
    seconds = time.monotonic() - began
    refused, retries = lab.retry_lines(logs)
    judged = lab.verdict(out)
    facts = {
        **judged,
        "problems": [each["text"] for each in judged["findings"]],
        "definition_of_success": measures.SUCCESS,
        **settings.document(),
        "patience_seconds": patience,
        "slots_of_each_manager": SLOTS,
        "load_processes": PROCESSES,
        "seconds": round(seconds, 2),
        **measures.latencies(lab.read_history(out)),
        "retries": retries,
        "refusals_sent_elsewhere": refused,
        "events": [],
        "processors": os.cpu_count() or 1,
        "versions": lab.versions()
        | {name: metadata.version(name) for name in ("locust", "gevent")},
    }
    rows = [(each.step, each.result, each.load, each.spread) for each in measured]
    return capacity_report.report(rows, facts)


def beside(settings: Settings) -> dict[str, Any]:
    """What Celery with Redis does of the same on this machine, or ``left_out``: why it does not."""
    lab.console.print("Shoal and Celery with Redis, in turns", style="dim")
    try:
        # Not everybody has them, and the rest of the experiment needs neither.
        from shoal_gateway.experiments.peers import celery_side, comparison
    except ModuleNotFoundError as error:
        lab.console.print(
            f"left out: {error}; the development environment has Celery: `make setup`",
            style="yellow", markup=False,
        )  # fmt: skip
        return {"left_out": str(error)}
    try:
        with tempfile.TemporaryDirectory(prefix="shoal-celery-") as place:
            return comparison.compare(
                Path(place),
                small=settings.small,
                tell=lambda said: lab.console.print(f"  {said}", markup=False, highlight=False),
            )
    except celery_side.MissingError as error:
        lab.console.print(f"left out: {error}", style="yellow", markup=False)
        return {"left_out": str(error)}


def _measure(fleet: Fleet, step: Step, seed: int, patience: float, history: History) -> Measured:
    """Runs one step and waits for all of its jobs.

    Raises:
        StepError: it could not be measured.
    """
    logs = history.path.parent / "locust"
    logs.mkdir(exist_ok=True)
    lines, spread, log = (logs / f"{step.name}{end}" for end in (".jsonl", "-spread", ".log"))
    lines.unlink(missing_ok=True)
    command = _command(fleet, step, seed, patience)
    command += ["--history", str(lines), "--spread", str(spread)]
    # Poisson arrivals may take longer than they do on average.
    limit = (2.0 * step.jobs / step.rate if step.rate else 0.0) + DRAIN + AROUND
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            with fleet.directory_of() as directory, Meters(fleet, directory, process.pid) as meters:
                code = process.wait(limit)
        except BaseException:
            # Its workers end with it: it tells them.
            process.terminate()
            process.wait(AROUND)
            raise
    if code != 0:
        raise StepError(f"Locust ended with {code} in {step.name}: see {log}")
    text = lines.read_text(encoding="utf-8").splitlines()
    history.append(text)
    records = [json.loads(each) for each in text]
    try:
        found = result(records, step.jobs, patience)
        load = meters.load(found.window)
    except (RuntimeError, ValueError) as error:
        raise StepError(f"{step.name} can't be judged: {error}") from error
    return Measured(
        step,
        found,
        load,
        json.loads(Path(f"{spread}.json").read_text(encoding="utf-8")),
        [each for each in records if each["kind"] == "submit"],
        [each["job_id"] for each in records if each["kind"] == "acknowledged"],
    )


def _command(fleet: Fleet, step: Step, seed: int, patience: float) -> list[str]:
    locustfile = fleet.layout.project / "locustfiles" / "open_loop.py"
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
    command += ["-f", str(locustfile), "--host", fleet.state.zookeeper]
    command += ["--processes", str(PROCESSES), "-u", str(PROCESSES), "-r", str(PROCESSES)]
    # Locust's own port is the same for all of its runs: workers would take another run's orders.
    port = str(free_port())
    command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    command += ["--master-port", port]
    command += ["--application", step.application]
    for name, value in step.parameters.items():
        command += ["--parameter", f"{name}={value}"]
    command += ["--rate", f"{step.rate:g}", "--count", str(step.jobs)]
    command += ["--seed", str(seed), "--patience", f"{patience:g}", "--drain", f"{DRAIN:g}"]
    return [*command, "--owner", OWNER, "--label", step.name]


def _collect(fleet: Fleet, measured: Sequence[Measured], history: History, out: Path) -> None:
    """What hosts and store say of a fleet's jobs, for the checker."""
    lab.console.print("  collecting ledgers, records and every published file …", style="dim")
    collect.ledgers(fleet.layout, history)
    submits = {each["key"]: each for step in measured for each in step.submits}
    ids = {job_id for step in measured for job_id in step.acknowledged}
    with fleet.directory_of() as directory:
        gateway = Gateway(directory, OWNER)
        for job in gateway.jobs(owner=OWNER):
            # By what was submitted, and not by what the gateway says of it.
            submit = submits[job.idempotency_key]
            made = expected(submit["application"], submit["parameters"])
            history.note("expected", "second run", job_id=job.id, files=made)
            ids.add(job.id)
        collect.records(gateway, history, ids, out / "outputs", lambda _done, _total: None)


def expected(application: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """What the applications of this experiment promise to write, spelled out."""
    name = application.partition("@")[0]
    if "seconds" not in parameters:
        return {}  # what does nothing writes nothing, too
    text = json.dumps({"seconds": float(parameters["seconds"])}) + "\n"
    return {f"{name}.json": hashlib.sha256(text.encode()).hexdigest()}
