"""Replicas of the gateway's services as real processes, found through a real ZooKeeper."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"


class Replicas:
    """Starts, signals and ends processes of a test; all end with the block.

    Args:
        hosts: ZooKeeper and chroot.
        root: Directory for the store, the logs and the caches.
        directory: Tells when a replica is announced.
    """

    def __init__(self, hosts, root, directory) -> None:
        self.hosts = hosts
        self.root = root
        self.directory = directory
        self.store = f"sqlite:///{root}/registry.db"
        self.processes: dict[str, subprocess.Popen] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(30)

    def start(self, service, number=1, *options):
        """Starts a replica and waits until it is announced; its id."""
        name = f"{service}-{number}"
        command = [sys.executable, "-m", f"shoal_gateway.{service}"]
        command += ["--zookeeper", self.hosts, "--id", name, "--cache", str(self.root / "cache")]
        if service == "registry":
            command += ["--store", self.store]
        if service == "api":
            command += ["--objects", f"file://{self.root}/objects", "--catalogue", str(EXAMPLES)]
        since = round(time.time(), 3)
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        self.announced(name, since)
        return name

    def announced(self, name, since=0.0):
        """Waits until a replica can be found; not the one of before, whose session still lives."""
        service = name.rpartition("-")[0]
        watch = self.directory.watch(service)

        def found():
            if self.processes[name].poll() is not None:
                raise AssertionError(f"{name} ended: {self.log(name)}")
            return any(
                replica.id == name and replica.routable and replica.registered_at >= since
                for replica in watch.replicas()
            )

        eventually(found, what=f"the announcement of {name}")

    def kill(self, name):
        """SIGKILL."""
        self.processes[name].kill()
        self.processes[name].wait(30)

    def terminate(self, name):
        """SIGTERM, and waits for the drain; the exit code."""
        self.processes[name].terminate()
        return self.processes[name].wait(60)

    def pause(self, name):
        """SIGSTOP."""
        os.kill(self.processes[name].pid, signal.SIGSTOP)

    def log(self, name):
        """What it has said."""
        return (self.root / f"{name}.log").read_text(errors="replace")


@contextlib.contextmanager
def replicas(hosts, root, directory):
    """`Replicas`, ended with the block."""
    with Replicas(hosts, root, directory) as made:
        yield made
