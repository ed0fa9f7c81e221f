"""Starting, seeing, breaking and ending a local fleet."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from shoal import Replica
from shoal.directory import Directory
from shoal.testing import ZooKeeperEnsemble, ZooKeeperServer
from shoal_gateway.fleet import layout, processes
from shoal_gateway.fleet.layout import Layout
from shoal_gateway.fleet.state import FleetState, ReplicaState, StateFile

# Told of progress: what is done, how much of how much.
Progress = Callable[[str, int, int], None]


class FleetError(Exception):
    """A fleet can't do what it was asked; the message says why and what to do."""


def _silent(_what: str, _done: int, _total: int) -> None:
    """Nobody wants to hear of progress."""


class Fleet:
    """The fleet in a directory.

    Args:
        directory: Where it keeps everything.
        progress: Told of the progress of slow things.
    """

    def __init__(self, directory: Path, *, progress: Progress = _silent) -> None:
        self.directory = directory.absolute()
        self._file = StateFile(self.directory)
        self._progress = progress

    @property
    def layout(self) -> Layout:
        """Where its things lie."""
        return Layout(self.directory, layout.project_root())

    @property
    def state(self) -> FleetState:
        """What it consists of.

        Raises:
            FleetError: there is no fleet here, or its file can't be read.
        """
        try:
            state = self._file.read()
        except ValueError as error:
            raise FleetError(str(error)) from error
        if state is None:
            raise FleetError(f"there is no fleet in {self.directory}: start one with `shoal up`")
        return state

    @property
    def exists(self) -> bool:
        """Whether there is one, running or not."""
        return self._file.path.exists()

    def up(self, *, hosts: int = 3, ensemble: int = 1, timeout: float = 120.0) -> FleetState:
        """Starts ZooKeeper and every replica, and waits until all can be found.

        Raises:
            FleetError: there is one already, or a part of it did not come up.
        """
        if self.exists:
            raise FleetError(
                f"there is a fleet in {self.directory} already: see it with `shoal ps`, end it "
                "with `shoal down`"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._file.locked():
            state = FleetState(hosts=layout.hosts(hosts), ensemble=ensemble)
            # Written first: whatever happens now, `shoal down` knows what to look for.
            self._file.write(state)
            self._progress("ZooKeeper", 0, 1)
            zookeeper = self._zookeeper(state)
            zookeeper.start()
            state = replace(state, zookeeper=zookeeper.hosts + layout.CHROOT)
            self._file.write(state)
            self._progress("ZooKeeper", 1, 1)
            self._install(state)
            planned = list(layout.replicas(hosts))
            for replica in planned:
                state = self._start(state, replica)
                self._file.write(state)
        self._await(state, planned, timeout)
        return state

    def down(self, timeout: float = 15.0) -> None:
        """Ends everything: by drain, then by force; leaves the directory to look at.

        Raises:
            FleetError: there is no fleet here.
        """
        state = self.state
        with self._file.locked():
            running = [
                each.process
                for each in state.replicas.values()
                if each.process is not None and processes.alive(each.process)
            ]
            for process in running:
                processes.send(process, signal.SIGCONT)
                processes.send(process, signal.SIGTERM)
            deadline = time.monotonic() + timeout
            total = len(running)
            while running and time.monotonic() < deadline:
                running = processes.wait_gone(running, 0.2)
                self._progress("replicas ended", total - len(running), total)
            # Supervisors and jobs outlive their managers, so they are ended here; ZooKeeper too.
            processes.kill_marked({processes.FLEET_MARK: state.id})
            self._file.remove()

    def kill(self, name: str) -> list[str]:
        """Kills a replica or a whole host with SIGKILL; returns the ids of what was running.

        A host is lost with everything on it: all its processes at once, supervisors and jobs too,
        and its directory, which goes to the graveyard.

        Raises:
            FleetError: there is nothing of that name, or it does not run.
        """
        state = self.state
        if name in state.hosts:
            return self._kill_host(state, name)
        replica = self._replica(state, name)
        if replica.process is None or not processes.send(replica.process, signal.SIGKILL):
            raise FleetError(f"{name} does not run: start it with `shoal start {name}`")
        processes.wait_gone([replica.process], 10.0)
        return [name]

    def start(self, name: str | None = None, timeout: float = 60.0) -> list[str]:
        """Starts a replica, a host's replicas, or (None) all that do not run.

        Raises:
            FleetError: there is nothing of that name, or it runs, or it did not come up.
        """
        with self._file.locked():
            state = self.state
            if name is None:
                wanted = list(state.replicas.values())
            elif name in state.hosts:
                wanted = state.on_host(name)
            else:
                wanted = [self._replica(state, name)]
            missing = [each for each in wanted if not _runs(each)]
            if name is not None and not missing:
                raise FleetError(f"{name} runs already")
            self._install(state)
            for replica in missing:
                state = self._start(state, replica)
                self._file.write(state)
        self._await(state, missing, timeout)
        return [replica.id for replica in missing]

    def running(self, name: str) -> bool:
        """Whether a replica's process runs.

        Raises:
            FleetError: there is no such replica.
        """
        return _runs(self._replica(self.state, name))

    def directory_of(self) -> Directory:
        """A way into the fleet's directory, for callers on this machine."""
        return Directory(self.state.zookeeper, cache_dir=self.directory / "cache")

    def _zookeeper(self, state: FleetState) -> ZooKeeperServer | ZooKeeperEnsemble:
        marks = {processes.FLEET_MARK: state.id}
        path = self.layout.zookeeper
        if state.ensemble == 1:
            return ZooKeeperServer(path, environment=marks)
        return ZooKeeperEnsemble(state.ensemble, path, environment=marks)

    def _install(self, state: FleetState) -> None:
        """Puts catalogue and application code in place; a host that came back is bare."""
        place = self.layout
        place.catalogue.mkdir(parents=True, exist_ok=True)
        (self.directory / "store").mkdir(exist_ok=True)
        (self.directory / "objects").mkdir(exist_ok=True)
        for application in sorted((place.project / "examples").iterdir()):
            for entry in application.glob("*.toml"):
                target = place.catalogue / f"{application.name}-{entry.name}"
                if not target.exists():
                    shutil.copy2(entry, target)
            for host in state.hosts:
                self._warm(place.root(host))
                code = place.root(host) / "apps" / application.name
                if application.is_dir() and not code.exists():
                    ignored = shutil.ignore_patterns("__pycache__", "*.toml")
                    shutil.copytree(application, code, ignore=ignored)

    def _warm(self, root: Path) -> None:
        """Gives a host the caches that jobs of a flavor would otherwise make first (fonts)."""
        for flavor in layout.FLAVORS:
            made = self.layout.project / "build" / "flavors" / flavor / "cache"
            target = root / "cache" / f"jobs-{flavor}"
            if made.is_dir() and not target.exists():
                shutil.copytree(made, target)

    def _start(self, state: FleetState, replica: ReplicaState) -> FleetState:
        place = self.layout
        marks = {processes.FLEET_MARK: state.id, processes.HOST_MARK: replica.host}
        try:
            process = processes.spawn(
                place.command(state, replica), log=place.log(replica), environment=marks
            )
        except OSError as error:
            raise FleetError(f"{replica.id} could not be started: {error}") from error
        return state.with_replica(replace(replica, process=process))

    def _await(self, state: FleetState, replicas: Iterable[ReplicaState], timeout: float) -> None:
        """Waits until each replica's present process is announced."""
        wanted = {each.id: state.replicas[each.id] for each in replicas}
        seen = threading.Event()
        announced: dict[str, Replica] = {}
        began = time.time()

        def look(found: tuple[Replica, ...]) -> None:
            announced.update((each.id, each) for each in found if each.routable)
            seen.set()

        with self.directory_of() as directory:
            for service in {each.service for each in wanted.values()}:
                directory.watch(service).subscribe(look)
            deadline = time.monotonic() + timeout
            while True:
                # A former life's node may still be there: what counts was announced after it.
                fresh = {
                    key
                    for key, each in announced.items()
                    if key in wanted and each.registered_at >= _birth(wanted[key], began)
                }
                self._progress("replicas found", len(fresh), len(wanted))
                if len(fresh) == len(wanted):
                    return
                for key in wanted.keys() - fresh:
                    if not _runs(wanted[key]):
                        raise FleetError(self._obituary(wanted[key]))
                if time.monotonic() > deadline:
                    late = ", ".join(sorted(wanted.keys() - fresh))
                    raise FleetError(
                        f"not announced within {timeout:g} s: {late}; their logs are in "
                        f"{self.directory}/hosts/*/logs"
                    )
                seen.wait(0.2)
                seen.clear()

    def _obituary(self, replica: ReplicaState) -> str:
        log = self.layout.log(replica)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        return f"{replica.id} ended as it started; the end of {log}:\n" + "\n".join(lines)

    def _kill_host(self, state: FleetState, host: str) -> list[str]:
        with self._file.locked():
            running = [each.id for each in state.on_host(host) if _runs(each)]
            processes.kill_marked({processes.FLEET_MARK: state.id, processes.HOST_MARK: host})
            root = self.layout.root(host)
            if not running and not root.exists():
                raise FleetError(f"{host} is lost already: bring it back with `shoal start {host}`")
            if root.exists():
                graves = self.layout.graveyard
                graves.mkdir(exist_ok=True)
                number = len(list(graves.glob(f"{host}.*"))) + 1
                root.rename(graves / f"{host}.{number}")
        return running

    def _replica(self, state: FleetState, name: str) -> ReplicaState:
        replica = state.replicas.get(name)
        if replica is None:
            known = ", ".join([*state.hosts, *state.replicas])
            raise FleetError(f"there is no replica or host '{name}'; there are {known}")
        return replica


def _runs(replica: ReplicaState) -> bool:
    return replica.process is not None and processes.alive(replica.process)


def _birth(replica: ReplicaState, fallback: float) -> float:
    """When a replica's process started, seconds since 1970; a second early, for the grain."""
    if replica.process is None:
        return fallback
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    ticks = 100.0  # USER_HZ, which Linux fixes for user space
    return time.time() - uptime + replica.process.started / ticks - 1.0
