"""Starting, seeing, breaking and ending a local fleet.

An operation is a few lines over one recorded state; what they start lies in modules of its own. The
file is long because they are many.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from shoal import zookeepertls
from shoal.directory import Directory
from shoal.testing import ZooKeeperEnsemble, ZooKeeperServer
from shoal.tls import ENVIRONMENT, Tls
from shoal_gateway.access import OPERATOR
from shoal_gateway.fleet import certs, layout, page, processes
from shoal_gateway.fleet.arrival import Progress, await_announced, silent
from shoal_gateway.fleet.errors import FleetError, NoFleetError
from shoal_gateway.fleet.installing import install
from shoal_gateway.fleet.layout import Layout
from shoal_gateway.fleet.postgres import PostgresServer
from shoal_gateway.fleet.state import FleetState, ReplicaState, StateFile

# Told of a fleet whose ZooKeeper runs and of a replica to be started; returns that with its ways.
Route = Callable[[FleetState, ReplicaState], ReplicaState]


class Fleet:
    """The fleet in a directory.

    Args:
        directory: Where it keeps everything.
        progress: Told of the progress of slow things.
    """

    def __init__(self, directory: Path, *, progress: Progress = silent) -> None:
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
            NoFleetError: there is no fleet here.
            FleetError: its file can't be read.
        """
        try:
            state = self._file.read()
        except ValueError as error:
            raise FleetError(str(error)) from error
        if state is None:
            raise NoFleetError(f"there is no fleet in {self.directory}: start one with `shoal up`")
        return state

    @property
    def exists(self) -> bool:
        """Whether there is one, running or not."""
        return self._file.path.exists()

    def up(
        self,
        *,
        hosts: int = 3,
        ensemble: int = 1,
        slots: int = 2,
        store: str = "sqlite",
        require_signed: bool = False,
        users: str = "open",
        tls: bool = False,
        certificates: Path | None = None,
        route: Route | None = None,
        timeout: float = 120.0,
    ) -> FleetState:
        """Starts ZooKeeper and every replica, and waits until all can be found.

        When that fails or is interrupted, what was started is ended: half a fleet is no use to
        anybody. The logs stay.

        Args:
            hosts: How many, each with a replica of each service.
            ensemble: How many ZooKeeper servers.
            slots: Jobs at once of each app manager.
            store: What the registry keeps jobs in: "sqlite" or "postgres".
            require_signed: Whether unsigned jobs are refused.
            users: Whether callers need a token: "open" or "required". Then a first administrator is
                made, whose token is in `Layout.token`.
            tls: Whether all speak TLS, with certificates of an authority of the fleet's own.
            certificates: A directory of `shoal certs` whose certificates they have instead.
            route: Says by which ways each replica is reached and reaches ZooKeeper; None: the
                direct ones.
            timeout: Seconds for the replicas to be found.

        Raises:
            FleetError: there is one already, or a part of it did not come up.
            ZooKeeperError: ZooKeeper is not installed or did not come up.
            OSError: something could not be installed.
            TlsError: a certificate is missing or can't be used.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._file.locked():
            # Under the lock: of two commands at once, one finds the other's fleet.
            if self.exists:
                raise FleetError(
                    f"there is a fleet in {self.directory} already: see it with `shoal ps`, end "
                    "it with `shoal down`"
                )
            state = FleetState(
                hosts=layout.hosts(hosts),
                ensemble=ensemble,
                slots=slots,
                store=store,
                require_signed=require_signed,
                users=users,
                certificates=self._certificates(tls, certificates),
            )
            # Written first: whatever happens now, `shoal down` knows what to look for.
            self._file.write(state)
        try:
            with self._file.locked():
                state = replace(state, zookeeper=self._start_zookeeper(state) + layout.CHROOT)
                self._start_store(state)
                self._file.write(state)
                if users == "required":
                    install(self.layout, ())
                    self._make_administrator(state)
                planned = list(layout.replicas(hosts))
                if route is not None:
                    planned = [route(state, each) for each in planned]
                state = self._launch(state, planned)
            self._await(state, planned, timeout)
        except BaseException:
            self.down()
            raise
        return state

    def down(self, timeout: float = 15.0) -> None:
        """Ends everything: by drain, then by force; leaves the directory to look at.

        Jobs, results and logs stay, and the next `up` in the same directory goes on with them.

        Raises:
            NoFleetError: there is no fleet here.
            TimeoutError: a process outlived SIGKILL.
        """
        with self._file.locked():
            state = self.state
            running = [each.process for each in state.replicas.values() if each.process is not None]
            if state.dashboard is not None:
                processes.send(state.dashboard, signal.SIGTERM)
                self.layout.dashboard_url.unlink(missing_ok=True)
            # Those that are paused can't drain.
            for number in (signal.SIGCONT, signal.SIGTERM):
                running = [process for process in running if processes.send(process, number)]
            deadline = time.monotonic() + timeout
            total = len(running)
            while running and time.monotonic() < deadline:
                running = processes.wait_gone(running, 0.2)
                self._progress("replicas ended", total - len(running), total)
            if state.store == "postgres":
                self._postgres(state).stop()
            # Supervisors and jobs outlive their managers, so they are ended here; ZooKeeper too.
            processes.kill_marked({processes.FLEET_MARK: state.id})
            self._file.remove()

    def erase(self) -> None:
        """Ends the fleet where there is one, and removes its directory with all that is in it."""
        if self.exists:
            self.down()
        # Its data may lie elsewhere, where the account that it runs as can reach it.
        PostgresServer(self.layout.postgres).remove()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self, name: str) -> list[str]:
        """Kills a replica or a whole host with SIGKILL; returns the ids of what was running.

        A host is lost with everything on it: all its processes at once, supervisors and jobs too,
        and its directory, which goes to the graveyard.

        Raises:
            FleetError: there is nothing of that name, or it does not run.
            TimeoutError: a process outlived SIGKILL.
        """
        state = self.state
        if name in state.hosts:
            return self._kill_host(name)
        process = self._replica(state, name).process
        if process is None or not processes.send(process, signal.SIGKILL):
            raise FleetError(f"{name} does not run: start it with `shoal start {name}`")
        if processes.wait_gone([process], 10.0):
            raise TimeoutError(f"{name}, process {process.pid}, outlived SIGKILL for 10 s")
        return [name]

    def start(self, name: str | None = None, timeout: float = 60.0) -> list[str]:
        """Starts a replica, a host's replicas, or (None) all that do not run.

        ZooKeeper is started too where it has ended: without it nobody could find them.

        Returns:
            The ids of what was started.

        Raises:
            FleetError: there is nothing of that name, or it runs, or it did not come up.
            ZooKeeperError: ZooKeeper did not come up.
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
            if state.certificates == str(self.layout.certificates):
                # Those of a fleet that slept for weeks have expired.
                certs.prepare(self.layout.certificates)
            self._start_zookeeper(state)
            self._start_store(state)
            state = self._launch(state, missing)
        self._await(state, missing, timeout)
        return [replica.id for replica in missing]

    def run(self, replica: ReplicaState) -> ReplicaState:
        """Starts a replica, known or new, and does not wait until it can be found.

        Returns:
            It, with its process.

        Raises:
            FleetError: it could not be started.
        """
        with self._file.locked():
            return self._launch(self.state, [replica]).replicas[replica.id]

    def stop(self, name: str, timeout: float = 60.0) -> None:
        """Drains a replica and waits for its end; one that is not gone in time is killed.

        Args:
            name: The replica.
            timeout: Seconds.

        Raises:
            FleetError: there is no such replica.
            TimeoutError: it outlived SIGKILL.
        """
        process = self._replica(self.state, name).process
        if process is None:
            return
        # What is paused can't drain.
        for number in (signal.SIGCONT, signal.SIGTERM):
            processes.send(process, number)
        if processes.wait_gone([process], timeout):
            processes.send(process, signal.SIGKILL)
            if processes.wait_gone([process], 10.0):
                raise TimeoutError(f"{name}, process {process.pid}, outlived SIGKILL for 10 s")

    def forget(self, name: str) -> None:
        """Takes a replica that has ended out of the fleet.

        Raises:
            FleetError: there is none, or it runs.
        """
        with self._file.locked():
            state = self.state
            if _runs(self._replica(state, name)):
                raise FleetError(f"{name} runs: it can't be forgotten")
            self._file.write(state.without_replica(name))

    def kill_store(self) -> None:
        """Kills the database server with SIGKILL; its data stays.

        Raises:
            FleetError: the store is a file, and there is no server to kill.
            PostgresError: it does not run.
        """
        state = self.state
        if state.store != "postgres":
            raise FleetError("this fleet keeps jobs in a file: there is no database server to kill")
        self._postgres(state).kill()

    def start_store(self) -> None:
        """Starts the database server where it is one and does not run.

        Raises:
            PostgresError: it did not come up.
        """
        self._start_store(self.state)

    def start_dashboard(self) -> str:
        """Starts the live page; its URL.

        Raises:
            FleetError: there is no fleet, or it did not come up.
        """
        # Not under the lock: commands need not wait for a page.
        process, url = page.start(self.layout, self.state)
        with self._file.locked():
            self._file.write(replace(self.state, dashboard=process))
        return url

    def zookeepers(self) -> list[ZooKeeperServer]:
        """ZooKeeper's servers, whether they run or not: to break them, and to ask them."""
        zookeeper = self._zookeeper(self.state)
        return list(zookeeper) if isinstance(zookeeper, ZooKeeperEnsemble) else [zookeeper]

    def running(self, name: str) -> bool:
        """Whether a replica's process runs.

        Raises:
            FleetError: there is no such replica.
        """
        return _runs(self._replica(self.state, name))

    def directory_of(self) -> Directory:
        """A way into the fleet's directory, for callers on this machine."""
        return Directory(self.state.zookeeper, cache_dir=self.directory / "cache", tls=self.tls())

    def tls(self) -> Tls | None:
        """The operator's certificate; None where the fleet speaks plain text.

        Raises:
            NoFleetError: there is no fleet here.
        """
        place = self.state.certificates
        return Tls.of(Path(place) / OPERATOR) if place else None

    def _certificates(self, own: bool, elsewhere: Path | None) -> str:
        if elsewhere is not None:
            certs.check(elsewhere)
            return str(elsewhere.absolute())
        if not own:
            return ""
        certs.prepare(self.layout.certificates)
        return str(self.layout.certificates)

    def _start_zookeeper(self, state: FleetState) -> str:
        """Starts what of ZooKeeper does not run; its address."""
        zookeeper = self._zookeeper(state)
        self._progress("ZooKeeper", 0, 1)
        zookeeper.start()
        if state.certificates:
            servers = zookeeper.hosts.removeprefix(zookeepertls.SCHEME)
            certs.protect(servers, layout.CHROOT, Path(state.certificates))
        self._progress("ZooKeeper", 1, 1)
        return zookeeper.hosts

    def _zookeeper(self, state: FleetState) -> ZooKeeperServer | ZooKeeperEnsemble:
        marks = {processes.FLEET_MARK: state.id}
        path = self.layout.zookeeper
        tls = None
        if state.certificates:
            tls = Tls.of(Path(state.certificates) / zookeepertls.SERVICE)
        if state.ensemble == 1:
            return ZooKeeperServer(path, environment=marks, tls=tls)
        return ZooKeeperEnsemble(state.ensemble, path, environment=marks, tls=tls)

    def _start_store(self, state: FleetState) -> None:
        if state.store == "postgres":
            self._progress("PostgreSQL", 0, 1)
            self._postgres(state).start()
            self._progress("PostgreSQL", 1, 1)

    def _postgres(self, state: FleetState) -> PostgresServer:
        marks = {processes.FLEET_MARK: state.id}
        return PostgresServer(self.layout.postgres, environment=marks)

    def _launch(self, state: FleetState, replicas: Sequence[ReplicaState]) -> FleetState:
        """Starts replicas' processes, each written down before the next."""
        place = self.layout
        install(place, sorted({each.host for each in replicas}))
        for replica in replicas:
            marks = {processes.FLEET_MARK: state.id, processes.HOST_MARK: replica.host}
            code = place.releases.environment(replica.version)
            try:
                process = processes.spawn(
                    place.command(state, replica),
                    log=place.log(replica),
                    # A certificate of whoever started us is no service's.
                    environment={**marks, **code, ENVIRONMENT: ""},
                )
            except OSError as error:
                raise FleetError(f"{replica.id} could not be started: {error}") from error
            state = state.with_replica(replace(replica, process=process))
            self._file.write(state)
        return state

    def _await(self, state: FleetState, replicas: Sequence[ReplicaState], timeout: float) -> None:
        started = [state.replicas[each.id] for each in replicas]
        with self.directory_of() as directory:
            await_announced(
                directory, started, log=self.layout.log, progress=self._progress, timeout=timeout
            )

    def _make_administrator(self, state: FleetState) -> None:
        """Makes the first administrator in the store that the registries are about to open."""
        # A process of its own, as it is where the store is elsewhere.
        made = subprocess.run(
            [
                *(sys.executable, "-m", "shoal_gateway.registry.first_admin"),
                *(self.layout.store(state.store), "--token-file", str(self.layout.token)),
                "--again",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise FleetError(f"no administrator could be made: {made.stderr.strip()}")

    def _kill_host(self, host: str) -> list[str]:
        with self._file.locked():
            state = self.state
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
