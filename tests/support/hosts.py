"""App managers as real processes on hosts of a test, beside a real registry and scheduler."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import uuid

import pytest

from shoal.retry import Retry
from shoal_balancer import LeastLoaded
from shoal_gateway.appmanager import supervisor
from shoal_gateway.convert import duration
from shoal_gateway.fleet.processes import FLEET_MARK, kill_marked
from shoal_gateway.objectstore import ObjectStore
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc
from tests.support.replicas import Replicas
from tests.support.waiting import eventually

DEADLINE = 60.0
TERMINAL = {"SUCCEEDED", "FAILED", "CANCELLED", "DEAD"}
# A tree: a detached child that ignores SIGTERM and has no environment to be found by.
TREE = """
import os, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True, env={})
print(os.getpid(), child.pid, flush=True)
time.sleep(3600)
"""


class ById(LeastLoaded):
    """Always the first by name."""

    def choose(self, nodes, now, rng):
        return min(nodes, key=lambda node: node.replica.id)


class Hosts(Replicas):
    """Replicas, and what a test wants to know of jobs."""

    def __init__(self, hosts, root, directory) -> None:
        super().__init__(hosts, root, directory)
        self.objects = ObjectStore.open(f"file://{root}/objects")
        self.mark = {FLEET_MARK: str(uuid.uuid4())}

    def __enter__(self):
        self.start("registry")
        self.channel = self.directory.channel("registry")
        self.registry = registry_pb2_grpc.RegistryStub(self.channel)
        return self

    def __exit__(self, *exc):
        self.channel.close()
        super().__exit__(*exc)
        # Supervisors and jobs outlive their managers on purpose.
        kill_marked(self.mark)

    def manager(self, number=1, *options, flavor="local", python=sys.executable, lease=2.0):
        facts = ["--flavor", flavor, "--root", str(self.host(number)), "--slots", "2"]
        facts += ["--objects", f"file://{self.root}/objects", "--host", f"host-{number}"]
        self.host(number).mkdir(parents=True, exist_ok=True)
        before, sys.executable = sys.executable, str(python)
        try:
            return self.start("appmanager", number, *facts, "--lease", str(lease), *options)
        finally:
            sys.executable = before

    def host(self, number):
        return self.root / "hosts" / f"host-{number}"

    def resume(self, name):
        os.kill(self.processes[name].pid, signal.SIGCONT)

    def submit(self, code, *, outputs=(), flavor="local", **spec):
        request = registry_pb2.CreateJobRequest(
            owner="ada",
            idempotency_key=str(uuid.uuid4()),
            spec=job_pb2.JobSpec(
                application="test@1.0",
                flavor=flavor,
                command=["{python}", "-c", code],
                outputs=outputs,
                **spec,
            ),
        )
        return self.registry.CreateJob(request, timeout=DEADLINE).job.id

    def lease(self, seconds=60.0):
        """The next queued job, as a scheduler gets it."""
        request = registry_pb2.LeaseRequest(
            scheduler_id="test", max_jobs=1, lease=duration(seconds)
        )
        (offer,) = eventually(
            lambda: self.registry.Lease(request, timeout=DEADLINE).offers, what="an offer"
        )
        return offer

    def offer(self, offer, to=None, attempt_timeout=None):
        """Offers a job to managers in the order of their ids, or to one; the verdict."""
        retry = Retry(attempt_timeout=attempt_timeout)
        only = (lambda replica: replica.id == to) if to else None
        with self.directory.channel(
            "appmanager", policy=ById(), retry=retry, filter=only
        ) as channel:
            stub = appmanager_pb2_grpc.AppManagerStub(channel)
            request = appmanager_pb2.StartRequest(offers=[offer])
            (item,) = stub.Start(request, timeout=DEADLINE, wait_for_ready=True).items
            return appmanager_pb2.StartResponse.Verdict.Name(item.verdict)

    def job(self, job_id):
        return self.registry.GetJob(registry_pb2.GetJobRequest(id=job_id), timeout=DEADLINE).job

    def events(self, job_id):
        """A job's history."""
        request = registry_pb2.GetJobRequest(id=job_id)
        return self.registry.GetJob(request, timeout=DEADLINE).events

    def state(self, job_id):
        name = job_pb2.State.Name(self.job(job_id).state)
        return name.removeprefix("STATE_")

    def reaches(self, job_id, *states):
        eventually(lambda: self.state(job_id) in states, DEADLINE, f"{states} of {job_id}")
        return self.job(job_id)

    def ended(self, job_id):
        return self.reaches(job_id, *TERMINAL)

    def ledger(self, *numbers):
        """Executions on hosts."""
        found = []
        for number in numbers or range(1, 4):
            path = self.host(number) / "ledger.jsonl"
            if path.exists():
                found += [json.loads(line) for line in path.read_text().splitlines()]
        return found

    def starts(self, job_id):
        return [
            entry
            for entry in self.ledger()
            if (entry["job_id"], entry["event"]) == (job_id, "start")
        ]

    def last(self, number):
        """The newest event of a job's process in a host's ledger."""
        events = (entry["event"] for entry in self.ledger(number))
        return [None, *(event for event in events if event != "published")][-1]

    def running(self, name):
        """What a manager says that it runs."""
        with self.directory.channel(
            "appmanager", filter=lambda replica: replica.id == name
        ) as channel:
            stub = appmanager_pb2_grpc.AppManagerStub(channel)
            request = appmanager_pb2.StatusRequest()
            return list(stub.Status(request, timeout=DEADLINE, wait_for_ready=True).running)

    def content(self, job, name):
        (file,) = [file for file in job.manifest.files if file.name == name]
        return b"".join(self.objects.get(file.object.key))


def alive(pid):
    return supervisor.start_ticks(pid) is not None


def tree(hosts, number=1):
    """Process ids that a running TREE has printed."""

    def printed():
        found = []
        # Directories of earlier attempts go while we look.
        with contextlib.suppress(FileNotFoundError):
            for path in (hosts.host(number) / "attempts").rglob("stdout"):
                found += [int(pid) for pid in path.read_text().split()]
        return [pid for pid in found if alive(pid)]

    return eventually(lambda: pids if len(pids := printed()) == 2 else None, what="the job's tree")


def gone(pids):
    return eventually(lambda: not any(map(alive, pids)), what=f"the end of {pids}")


@pytest.fixture
def hosts(chroot, tmp_path, directories, monkeypatch):
    made = Hosts(chroot, tmp_path, directories())
    for name, value in made.mark.items():
        monkeypatch.setenv(name, value)
    with made:
        yield made
