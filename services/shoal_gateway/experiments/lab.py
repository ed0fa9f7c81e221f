"""What all experiments share: a fresh fleet, a history, the checker's verdict and a report."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shoal.directory import Directory
from shoal.errors import ShoalError
from shoal.testing.installed import ZooKeeperError
from shoal_gateway import runtime
from shoal_gateway.client import Gateway
from shoal_gateway.demo.second_run import SecondRunError
from shoal_gateway.experiments import collect, measures, workload
from shoal_gateway.experiments.client import Client
from shoal_gateway.experiments.faults import Happened
from shoal_gateway.experiments.history import History
from shoal_gateway.experiments.settings import Settings
from shoal_gateway.experiments.workload import Task
from shoal_gateway.fleet import Fleet, FleetError
from shoal_gateway.fleet.fleet import Route
from shoal_gateway.fleet.pginstalled import PostgresError

logger = logging.getLogger(__name__)
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Lab:
    """A run under way.

    Attributes:
        settings: Its size and place.
        fleet: What it happens to.
        directory: Of the fleet.
        gateway: Where jobs go.
        history: Of everything.
        observations: The climate jobs' input.
    """

    settings: Settings
    fleet: Fleet
    directory: Directory
    gateway: Gateway
    history: History
    observations: Path

    def client(self) -> Client:
        """The user of this run, its input uploaded."""
        stored = self.gateway.upload(self.observations)
        return Client(self.gateway, self.history, {workload.OBSERVATIONS: stored})

    def follow(self, client: Client, timeout: float) -> None:
        """Waits for the jobs' ends behind a bar."""
        with progress_bar() as bar:
            task = bar.add_task("jobs ended", total=self.settings.jobs)
            client.wait(timeout, lambda done, total: bar.update(task, completed=done, total=total))

    def judge(self, client: Client, tasks: Sequence[Task]) -> dict[str, Any]:
        """Collects what hosts and store say, ends the history, and lets the checker judge it.

        Raises:
            SecondRunError: the jobs could not be run again for their checksums.
            FleetError: the checker could not judge.
        """
        history, out = self.history, self.settings.out
        console.print("collecting ledgers, records and every published file …", style="dim")
        collect.ledgers(self.fleet.layout, history)
        made = workload.expected(
            tasks, project=self.fleet.layout.project, observations=self.observations
        )
        for key, files in made:
            if key in client.acknowledged:
                job_id = client.acknowledged[key]
                history.note("expected", "second run", job_id=job_id, files=files)
        owned = {job.id for job in self.gateway.jobs(owner=self.gateway.owner)}
        with progress_bar() as bar:
            task = bar.add_task("records", total=None)
            collect.records(
                self.gateway,
                history,
                owned | set(client.acknowledged.values()),
                out / "outputs",
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        history.note("finish", "client", jobs=len(client.acknowledged))
        return verdict(out)

    def report(self, happened: Sequence[Happened], judged: dict[str, Any]) -> dict[str, Any]:
        """The keys that every report has."""
        lines = read_history(self.settings.out)
        done = measures.successes(lines)
        first = next(line["monotonic"] for line in lines if line["kind"] == "submit")
        seconds = max(done.values(), default=0.0) - (first - lines[0]["monotonic"])
        logs = [*self.fleet.layout.logs(), self.settings.out / "client.log"]
        refused, retries = retry_lines(logs)
        return {
            **judged,
            "problems": [each["text"] for each in judged["findings"]],
            "definition_of_success": measures.SUCCESS,
            **self.settings.document(),
            "seconds": round(seconds, 2),
            "jobs_per_second": round(judged["succeeded"] / seconds, 3) if seconds > 0.0 else 0.0,
            **measures.latencies(lines),
            "longest_gap_seconds": round(measures.longest_gap(done.values(), seconds), 2),
            "submits_rejected": sum(line["kind"] == "rejected" for line in lines),
            "retries": retries,
            "refusals_sent_elsewhere": refused,
            "events": [
                {
                    "number": each.number,
                    "what": each.what,
                    "at": round(each.at, 2),
                    "until": round(each.until, 2),
                }
                for each in happened
            ],
            "versions": versions(),
        }


def experiment(
    name: str,
    settings: Settings,
    body: Callable[[Lab], dict[str, Any]],
    *,
    hosts: int = 3,
    ensemble: int = 1,
    slots: int = 2,
    route: Route | None = None,
) -> int:
    """Runs an experiment from a fresh fleet to its report.

    Args:
        name: Of the experiment.
        settings: Its size and place.
        body: Does it and returns the report; its "good" says whether all is as it must be.
        hosts: Of the fleet.
        ensemble: ZooKeeper servers.
        slots: Of each app manager.
        route: Of each replica's ways, as `Fleet.up` takes it.

    Returns:
        The exit code: 0 when the report is good.
    """
    out = settings.out.absolute()
    clear(out)
    with logged(out / "client.log"):
        history = History(out / "history.jsonl")
        try:
            observations = observed()
            with (
                fresh_fleet(
                    out / "fleet",
                    hosts=hosts,
                    ensemble=ensemble,
                    slots=slots,
                    store=settings.store,
                    route=route,
                ) as fleet,
                fleet.directory_of() as directory,
            ):
                history.note("begin", "client", experiment=name, **settings.document())
                gateway = Gateway(directory, name)
                report = body(Lab(settings, fleet, directory, gateway, history, observations))
        except (
            FleetError, PostgresError, ZooKeeperError, ShoalError, SecondRunError, OSError,
            TimeoutError, grpc.RpcError,
        ) as error:  # fmt: skip
            logger.exception("the experiment failed")
            console.print(f"the experiment failed: {error}", style="red", markup=False)
            say_where(out)
            return 1
        finally:
            history.close()
    path = out / "report.json"
    path.write_text(json.dumps({"experiment": name, **report}, indent=2) + "\n", encoding="utf-8")
    for problem in report["problems"][:20]:
        console.print(problem, style="red", markup=False)
    if not report["good"]:
        say_where(out)
    pictures = " ".join(str(each) for each in sorted(out.glob("*.png")))
    console.print(f"{path} {pictures}", style="dim", markup=False, soft_wrap=True)
    # The last word, on standard output.
    Console().print(report["line"], highlight=False)
    return 0 if report["good"] else 1


def clear(out: Path) -> None:
    """Makes room for a run where an earlier one was; what is not an experiment's stays.

    Raises:
        FleetError: an earlier run's fleet could not be ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    Fleet(out / "fleet").erase()
    shutil.rmtree(out / "outputs", ignore_errors=True)
    for path in [out / "report.json", out / "history.jsonl", *out.glob("*.png")]:
        path.unlink(missing_ok=True)


def verdict(out: Path) -> dict[str, Any]:
    """What the checker says, in a process of its own.

    Raises:
        FleetError: it can't judge.
    """
    done = subprocess.run(
        [sys.executable, "-m", "shoal_checker", str(out), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise FleetError(f"the checker could not judge {out}: {done.stderr.strip()}")
    judged: dict[str, Any] = json.loads(done.stdout)
    return judged


def read_history(out: Path) -> list[dict[str, Any]]:
    """All lines of a run's history."""
    text = (out / "history.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def versions() -> dict[str, str]:
    """Of what ran."""
    found = {"shoal": runtime.installed_version(), "python": platform.python_version()}
    for name in ("grpcio", "kazoo", "sqlalchemy"):
        found[name] = metadata.version(name)
    return found


def retry_lines(logs: Sequence[Path]) -> tuple[int, int]:
    """Calls sent again because a server was full, and those because something had failed."""
    refused = retries = 0
    for path in logs:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if " shoal.retry " in line:
                    refused += "(refused)" in line
                    retries += "(refused)" not in line
    return refused, retries


def observed() -> Path:
    """The climate jobs' observations.

    Raises:
        FleetError: their package is not installed.
    """
    try:
        import vega_datasets
    except ModuleNotFoundError as error:
        raise FleetError(
            "the jobs' observations come with the package vega_datasets: run `make setup`"
        ) from error
    return Path(vega_datasets.__file__).parent / "_data" / "seattle-weather.csv"


@contextmanager
def fresh_fleet(directory: Path, **shape: Any) -> Iterator[Fleet]:
    """A fresh fleet that ends with the run, whatever happens.

    Args:
        directory: Where; what was there goes.
        shape: As `Fleet.up` takes it.
    """
    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        fleet = Fleet(directory, progress=tell)
        fleet.erase()
        try:
            fleet.up(**shape)
        except BaseException:
            if fleet.exists:
                fleet.down()
            raise
    quiet = Fleet(directory)
    try:
        yield quiet
    finally:
        quiet.down()


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Our own log beside the services', in the same form."""
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("kazoo").setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()


def say_where(out: Path) -> None:
    """Where to look when something went wrong."""
    console.print(
        f"logs: {out}/fleet/hosts/*/logs, {out}/fleet/graveyard/*/logs, {out}/client.log",
        style="red",
        markup=False,
        soft_wrap=True,
    )


def progress_bar() -> Progress:
    """Progress of something long, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
