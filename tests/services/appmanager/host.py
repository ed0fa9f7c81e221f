"""A host of a test: its root, and its app managers one after the other."""

import json
import os
import signal
import sys
import uuid

import pytest

from shoal_gateway.appmanager import supervisor
from shoal_gateway.appmanager.logic import AppManager
from shoal_gateway.appmanager.offers import Offer
from shoal_gateway.objectstore import ObjectStore
from tests.services.appmanager.fakes import FakeRegistry
from tests.support.waiting import eventually

STAY = "import time; time.sleep(3600)"


class Host:
    """A host's root and its managers, one after the other.

    Attributes:
        slots: Of a manager that is opened, unless it is said there.
        lease: Likewise, seconds.
        interpreter: That jobs run on.
        accounts: Of jobs; None: they run as the manager.
    """

    slots = 2
    lease = 0.4
    interpreter = sys.executable
    accounts = None

    def __init__(self, root):
        self.root = root
        self.registry = FakeRegistry()
        self.objects = ObjectStore.open(f"file://{root}/objects")
        self.manager = None

    def open(self, slots=None, lease=None):
        self.manager = AppManager(
            self.registry,
            self.objects,
            root=self.root,
            flavor="local",
            slots=self.slots if slots is None else slots,
            lease=self.lease if lease is None else lease,
            python=self.interpreter,
            accounts=self.accounts,
        )
        self.manager.open()
        return self.manager

    def start(self, *command, **facts):
        offer = self.offer(*command, **facts)
        (answer,) = self.manager.start([offer])
        return offer.job_id, answer

    def python(self, code, **facts):
        job_id, answer = self.start("{python}", "-c", code, **facts)
        assert answer.verdict == "started", answer
        return job_id

    def offer(self, *command, **facts):
        facts = {
            "job_id": str(uuid.uuid4()),
            "attempt": 1,
            "fence": 5,
            "application": "test@1.0",
            "flavor": "local",
            "inputs": (),
            "outputs": (),
            "wall_seconds": 60.0,
            "memory_mib": 0,
        } | facts
        return Offer(command=command, **facts)

    def pid(self, job_id):
        (runner,) = [each for each in self.manager.running() if each.attempt.spec.job_id == job_id]
        return runner.pid

    def report(self, job_id):
        return eventually(lambda: self.registry.of(job_id), what="a report")[0]

    def attempts(self):
        place = self.root / "attempts" / "local"
        return sorted(path.name for path in place.iterdir())

    def ledger(self):
        path = self.root / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def last(self):
        """The newest event of a job's process in the ledger."""
        events = (entry["event"] for entry in self.ledger())
        return [None, *(event for event in events if event != "published")][-1]

    def started(self):
        eventually(lambda: self.last() == "start", what="the job's start")

    def over(self):
        eventually(lambda: self.last() == "end", what="the job's end")

    def close(self):
        if self.manager is None:
            return
        pids = [runner.pid for runner in self.manager.running() if runner.pid]
        self.manager.close()
        for pid in pids:
            if supervisor.start_ticks(pid) is not None:
                os.kill(pid, signal.SIGTERM)
        eventually(lambda: not any(map(supervisor.start_ticks, pids)), what="supervisors' end")


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    made.close()
