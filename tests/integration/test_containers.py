"""The image as it is shipped, built and run by a real Docker engine: containers die, no job does.

SHOAL_CONTAINERS=3 and SHOAL_CONTAINER_JOBS=60 make it larger than the suite has time for
(`make test-containers`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time

import pytest

from shoal_gateway.client import TERMINAL, Gateway, state_name
from tests.support.docker import ROOT, Engine, missing
from tests.support.waiting import eventually

REPLICAS = int(os.environ.get("SHOAL_CONTAINERS", "2"))
JOBS = int(os.environ.get("SHOAL_CONTAINER_JOBS", "20"))
SLOTS = 2
SERVICES = ("registry", "api", "scheduler", "appmanager")
# As compose.yaml has them, but for the network: the engine has no bridge.
CONFINED = ["--network", "host", "--read-only", "--tmpfs", "/tmp", "--init"]
CONFINED += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
# Looked at more often than in earnest, and with the patience of a busy machine: each look is a
# Python that starts.
LOOKED_AT = ["--health-interval", "5s", "--health-timeout", "60s"]
USER = 10001
DEADLINE = 90.0
# Tries to do what nobody in the container should be able to; prints what it could.
BURGLAR = """
import os
could = [] if os.getuid() == 10001 else ["be root"]
for path in ("/etc/shoal", "/opt/shoal/venv/x", "/usr/local/bin/x"):
    try:
        open(path, "w"); could.append(path)
    except OSError as error:
        if error.errno != 30: could.append(f"{path}: {error}")
with open("/tmp/x", "w"), open("/var/lib/shoal/x", "w"): pass
os.unlink("/var/lib/shoal/x")
with open("/proc/self/status") as status:
    could += [line for line in status if line.startswith("CapEff") and int(line.split()[1], 16)]
print(could)
"""


@pytest.fixture
def engine():
    if why := missing():
        pytest.skip(why)
    engine = Engine()
    try:
        engine.__enter__()
    except OSError as error:
        pytest.skip(f"no Docker engine can be started here: {error}")
    try:
        yield engine
    finally:
        engine.__exit__(None, None, None)


class Containers:
    """Replicas of the services, one container each."""

    def __init__(self, engine, image, zookeeper, root) -> None:
        self.engine = engine
        self.image = image
        self.zookeeper = zookeeper
        self.root = root
        for name in ("store", "objects"):
            self.place(name)
        self.catalogue = self.place("catalogue")
        shutil.copy(ROOT / "examples/nap/nap-1.0.toml", self.catalogue)

    def place(self, *parts):
        """A directory that containers may write to."""
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, USER, USER)
        return path

    def home(self, name):
        return self.root / "home" / name

    def start(self, service, number):
        """Starts a container; its name."""
        name = f"{service}-{number}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {
            "ZOOKEEPER": self.zookeeper,
            "ID": name,
            "HOST": f"host-{number}",
            "BIND": f"127.0.0.1:{port}",
            "TEST_RUN": os.environ["SHOAL_TEST_RUN"],
        }
        mounts = {self.place("home", name): "/var/lib/shoal"}
        if service == "registry":
            settings["STORE"] = "sqlite:////srv/store/registry.db"
            mounts[self.root / "store"] = "/srv/store"
        if service in ("api", "appmanager"):
            settings["OBJECTS"] = "file:///srv/objects"
            mounts[self.root / "objects"] = "/srv/objects"
        if service == "api":
            settings["CATALOGUE"] = "/etc/catalogue"
            mounts[self.catalogue] = "/etc/catalogue:ro"
        if service == "scheduler":
            settings |= {"LEASE": "5", "POLL": "0.2"}
        if service == "appmanager":
            shutil.copytree(ROOT / "examples/nap", self.place("home", name, "apps") / "nap")
            settings |= {"FLAVOR": "local", "SLOTS": str(SLOTS), "LEASE": "4"}
        options = [
            each for key, value in settings.items() for each in ("-e", f"SHOAL_{key}={value}")
        ]
        options += [
            each for place, inside in mounts.items() for each in ("-v", f"{place}:{inside}")
        ]
        looks = LOOKED_AT if number == 1 else ["--no-healthcheck"]
        run = ["run", "-d", "--name", name, *CONFINED, *looks, *options]
        self.engine.docker(*run, self.image, service)
        return name

    def health(self, name):
        return self.engine.inspect(name)["State"]["Health"]["Status"]

    def logs(self, name):
        return self.engine.docker("logs", name)

    def published(self):
        """Jobs by the ledgers of all app managers, once for each result that was accepted."""
        entries = [
            json.loads(line)
            for path in self.root.glob("home/*/ledger.jsonl")
            for line in path.read_text().splitlines()
        ]
        return sorted(each["job_id"] for each in entries if each["event"] == "published")


@pytest.mark.timeout(400)
def test_containers_are_killed_under_load_and_no_job_is_lost(engine, chroot, tmp_path, directories):
    image = engine.build()
    settings = engine.inspect(image)["Config"]
    assert settings["User"] == "10001:10001"
    fleet = Containers(engine, image, chroot, tmp_path / "fleet")
    names = {
        service: [fleet.start(service, number) for number in range(1, REPLICAS + 1)]
        for service in SERVICES
    }
    directory = directories()
    for service in SERVICES:
        directory.ready(service, DEADLINE, count=REPLICAS)
    for name in (each[0] for each in names.values()):
        eventually(lambda name=name: fleet.health(name) == "healthy", DEADLINE, f"{name}'s health")
    assert engine.docker("exec", "appmanager-1", "python", "-c", BURGLAR) == "[]"

    gateway = Gateway(directory, "ada")
    nap = {"inputs": {}, "key": None}
    # They fill all slots, so that each app manager has something to lose.
    long = [
        gateway.submit("nap", parameters={"seconds": "4"}, **nap).id
        for _ in range(SLOTS * REPLICAS)
    ]

    def running(job_id):
        return state_name(gateway.get(job_id).job.state) == "RUNNING"

    eventually(lambda: all(map(running, long)), DEADLINE, "jobs in all slots")
    short: list[str] = []
    over = threading.Event()

    def submit():
        while not over.is_set() or len(short) < JOBS:
            short.append(gateway.submit("nap", parameters={"seconds": "0.2"}, **nap).id)
            time.sleep(0.1)  # the pace of the load

    submitting = threading.Thread(target=submit)
    submitting.start()
    try:
        # The app manager first: its jobs' leases run out while the others are killed.
        for service in reversed(SERVICES):
            before = len(short)
            engine.docker("kill", "--signal", "KILL", f"{service}-1")
            # Jobs are taken on while it is away.
            eventually(lambda before=before: len(short) >= before + 3, DEADLINE, "submits")
            engine.docker("start", f"{service}-1")
    finally:
        over.set()
        submitting.join(DEADLINE)
    assert not submitting.is_alive()

    jobs = [*long, *short]
    states = {}

    def ended():
        for job_id in jobs:
            if states.get(job_id) not in TERMINAL:
                states[job_id] = gateway.get(job_id).job.state
        return all(state in TERMINAL for state in states.values())

    eventually(ended, DEADLINE, "the end of all jobs")
    assert {state_name(state) for state in states.values()} == {"SUCCEEDED"}
    # Each has one result; and what the killed manager ran was lost with it, and ran again.
    assert fleet.published() == sorted(jobs)
    again = [job_id for job_id in long if gateway.get(job_id).job.attempt > 1]
    assert 1 <= len(again) <= SLOTS, {
        name: fleet.logs(name)[-2000:] for name in names["appmanager"]
    }

    cli = ["-e", f"SHOAL_ZOOKEEPER={chroot}", "-e", "SHOAL_FLEET=/tmp/fleet", image]
    shown = engine.docker("run", "--rm", *CONFINED, *cli, "shoal", "job", again[0])
    assert "SUCCEEDED" in shown

    # Told to stop, they drain and end well.
    last = [each[-1] for each in names.values()]
    engine.docker("stop", "--time", "90", *last)
    ends = {name: engine.inspect(name)["State"]["ExitCode"] for name in last}
    assert set(ends.values()) == {0}, {name: fleet.logs(name)[-2000:] for name in last}
