"""Discovery over ZooKeeper that outlives ZooKeeper's outages."""

from __future__ import annotations

import logging
import random
import time
import uuid
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kazoo.exceptions import KazooException, NoNodeError
from kazoo.hosts import collect_hosts

from shoal import diskcache, forks, instance
from shoal.channels import ChannelOwner
from shoal.errors import InstanceFormatError, RegistrationError
from shoal.registrar import ZooKeeperRegistration
from shoal.session import Session
from shoal.watching import SetWatch
from shoal.worker import Worker
from shoal_balancer import Replica

logger = logging.getLogger(__name__)

# Nodes read at once, and the spread of reads when many callers have to read many nodes at the same
# moment (anchors/balancing.md, lesson 8).
READS_AT_ONCE = 20
STORM_JITTER = 0.5
# How long a first answer of ZooKeeper is preferred to the snapshot on disk, seconds.
PREFER_LIVE = 0.5


class Directory(ChannelOwner):
    """The replicas of all services below one ZooKeeper chroot, and a way to be one of them.

        with shoal.Directory("zk1:2181,zk2:2181/gateway") as directory:
            with directory.channel("registry") as channel: ...

    One ZooKeeper session per process and directory, made at the first use (again in a forked
    child). The constructor neither blocks nor raises when ZooKeeper is dead: callers start from the
    last set that any caller on this machine has seen, and `ServiceWatch.describe` says so.

    Args:
        hosts: ZooKeeper servers, comma-separated, and a chroot: ``zk1:2181,zk2:2181/gateway``.
        session_timeout: Asked of the server, seconds; it clamps it to 2–20 of its ticks.
        cache_dir: Where snapshots for starts without ZooKeeper are kept; default
            ``$SHOAL_CACHE_DIR`` or ``~/.cache/shoal``.
        services_path: Parent of the services below the chroot.
        verify_every: Seconds between checks of what this process has announced.
        resync_every: Seconds between full reads of what is watched, ±20 %.

    Raises:
        ValueError: ``hosts`` can't be read.
    """

    def __init__(
        self,
        hosts: str,
        *,
        session_timeout: float = 10.0,
        cache_dir: Path | str | None = None,
        services_path: str = "/services",
        verify_every: float = 30.0,
        resync_every: float = 60.0,
    ) -> None:
        super().__init__()
        servers, chroot = _parse(hosts)
        if not session_timeout > 0.0:
            raise ValueError(f"session_timeout must be positive seconds, not {session_timeout!r}")
        self.hosts = hosts
        # The chroot is part of our paths and not kazoo's, so that it is made with its parents.
        self.services_path = f"{chroot}/{services_path.strip('/')}"
        self._servers = servers
        self._session_timeout = session_timeout
        self._verify_every = verify_every
        self._resync_every = resync_every
        self._cache = diskcache.DiskCache(
            Path(cache_dir) if cache_dir is not None else diskcache.default_directory(),
            f"{servers}{self.services_path}",
        )
        self._watches: dict[str, ServiceWatch] = {}
        self._registrations: set[ZooKeeperRegistration] = set()
        self._session: Session | None = None
        self._begin_process()
        forks.on_fork(self)

    def __repr__(self) -> str:
        return f"Directory({self.hosts!r})"

    def watch(self, service: str) -> ServiceWatch:
        """The one watch of a service; the first call for it begins to look in the background.

        Raises:
            ValueError: the name can't be a node's name.
            DirectoryClosedError: the directory was closed.
        """
        self._check_open()
        _check_name(service)
        session = self._running()
        watch = self._watches.get(service)
        if watch is None:
            fresh = ServiceWatch(self, service)
            # setdefault is atomic: two threads that ask at once get the same watch.
            watch = self._watches.setdefault(service, fresh)
            if watch is fresh:
                watch.begin()
        watch.session = session
        return watch

    def announce(
        self,
        service: str,
        replica: Replica,
        *,
        timeout: float = 15.0,
        secure: bool = False,
    ) -> ZooKeeperRegistration:
        """Announces a replica that serves already, and keeps the announcement true.

        Args:
            service: The service's name.
            replica: What to announce; its ``registered_at`` is set when it is 0.
            timeout: Seconds to wait for ZooKeeper.
            secure: Whether the port speaks TLS.

        Raises:
            RegistrationError: it was not announced within ``timeout`` seconds; nothing is left
                behind that would announce it later.
            ValueError: the service's or the replica's name can't be a node's name.
        """
        self._check_open()
        _check_name(service)
        _check_name(replica.id)
        if not replica.registered_at:
            replica = replace(replica, registered_at=time.time())
        session = self._running()
        registration = ZooKeeperRegistration(
            session,
            f"{self.services_path}/{service}/{replica.id}",
            service,
            replica,
            secure=secure,
            worker=self._worker,
            forget=self._registrations.discard,
        )
        self._registrations.add(registration)
        try:
            registration.announce(timeout)
        except RegistrationError:
            registration.withdraw(timeout=0.0)
            raise
        return registration

    def describe(self) -> str:
        """The session's state for a person, such as "connected" or "suspended for 3.2 s"."""
        return self._session.describe() if self._session else "not used yet"

    def close(self) -> None:
        """Closes channels, withdraws announcements, ends the session. Idempotent."""
        if self._closed:
            return
        super().close()
        for registration in list(self._registrations):
            registration.withdraw()
        self._worker.stop()
        if self._session is not None:
            self._session.close()
            self._session = None

    def after_fork(self) -> None:
        """In a forked child: the parent's session and announcements are the parent's.

        The kazoo client is dropped without a word to ZooKeeper: its socket is shared with the
        parent, whose session must live on.
        """
        self._registrations = set()
        for watch in self._watches.values():
            watch.forget_threads()
        self._channels = weakref.WeakSet()
        self._begin_process()

    def _begin_process(self) -> None:
        self.caller_id = str(uuid.uuid4())
        self._worker = Worker("shoal-directory")
        self._session = None

    def _running(self) -> Session:
        session = self._session
        if session is None:
            session = self._session = Session(
                self._servers, self._session_timeout, self._worker, self._connected
            )
            session.start()
            self._worker.call_later(self._verify_every, self._verify)
            for watch in list(self._watches.values()):
                watch.session = session
                watch.begin()
        return session

    def _connected(self, fresh_session: bool) -> None:
        for registration in list(self._registrations):
            registration.ensure_soon(jitter=fresh_session)
        for watch in list(self._watches.values()):
            watch.reread()

    def _verify(self) -> None:
        for registration in list(self._registrations):
            registration.ensure_soon()
        self._worker.call_later(self._verify_every, self._verify)


class ServiceWatch(SetWatch):
    """One service's replicas, read from ZooKeeper and watched.

    Everything that talks to ZooKeeper runs on the directory's worker thread; watches on ZooKeeper's
    event thread only mark what has to be read again. A node's data is kept until its own watch says
    that it changed, so one change costs one list and one read.
    """

    def __init__(self, directory: Directory, service: str) -> None:
        path = f"{directory.services_path}/{service}"
        super().__init__(service, path)
        self.session: Session | None = None
        self._directory = directory
        self._nodes: dict[str, Replica | None] = {}
        self._stale: set[str] = set()
        self._scheduled = False
        self._read_at: float | None = None
        self._disk_age: float | None = None

    def describe(self) -> str:
        """The directory's state, and where the present set comes from."""
        state = self._directory.describe()
        if self._read_at is not None:
            age = time.monotonic() - self._read_at
            return f"{state}; last read {age:.1f} s ago, {len(self.replicas())} replicas"
        if self._disk_age is not None:
            return f"{state}; set from disk, {self._disk_age:.0f} s old when loaded"
        return f"{state}; never read, and no snapshot on disk"

    def begin(self) -> None:
        """Starts to look: ZooKeeper's answer is preferred, the disk's taken when it is late."""
        worker = self._directory._worker  # noqa: SLF001 - one module, two halves of one thing
        self._nodes = {}
        self._read_at = None
        self._scheduled = False
        self.reread()
        worker.call_later(PREFER_LIVE, self._fall_back)
        self._plan_resync()

    def reread(self) -> None:
        """Reads the whole set again, soon."""
        self._stale.update(self._nodes)
        self._refresh_soon()

    def _plan_resync(self) -> None:
        every = self._directory._resync_every  # noqa: SLF001
        self._later(every * random.uniform(0.8, 1.2), self._resync)  # noqa: S311 - no secret

    def _resync(self) -> None:
        self.reread()
        self._plan_resync()

    def _fall_back(self) -> None:
        if self.known:
            return
        loaded = self._directory._cache.load(self.service)  # noqa: SLF001
        if loaded is None:
            return
        replicas, self._disk_age = loaded
        logger.warning(
            "%s: ZooKeeper is %s; starting from the snapshot on disk, %.0f s old, %d replicas",
            self.path,
            self._directory.describe(),
            self._disk_age,
            len(replicas),
        )
        self.publish(replicas)

    def _children_changed(self, _event: object) -> None:
        self._refresh_soon()

    def _node_changed(self, event: Any) -> None:
        self._stale.add(event.path.rpartition("/")[2])
        self._refresh_soon()

    def _refresh_soon(self) -> None:
        # Many events before the read are one read.
        if not self._scheduled:
            self._scheduled = True
            self._later(0.0, self._refresh)

    def _later(self, delay: float, task: Callable[[], object]) -> None:
        self._directory._worker.call_later(delay, task)  # noqa: SLF001

    def _refresh(self) -> None:
        self._scheduled = False
        session = self.session
        if session is None or not session.connected:
            return  # The next connect reads everything; the last good set stays.
        try:
            self._read(session)
        except (KazooException, session.client.handler.timeout_exception) as error:
            logger.warning("%s could not be read (%r); the last good set is kept", self.path, error)
            self._stale.update(self._nodes)
            self._later(1.0, self._refresh_soon)

    def _read(self, session: Session) -> None:
        names = self._names(session)
        stale, self._stale = self._stale, set()
        wanted = [name for name in names if name in stale or name not in self._nodes]
        nodes = {name: self._nodes.get(name) for name in names}
        for start in range(0, len(wanted), READS_AT_ONCE):
            if start:
                # Beyond one batch many callers are reading as we are: let them through.
                time.sleep(random.uniform(0.0, STORM_JITTER / 10.0))  # noqa: S311 - no secret
            batch = wanted[start : start + READS_AT_ONCE]
            reads = [
                (
                    name,
                    session.client.get_async(f"{self.path}/{name}", watch=self._node_changed),
                )
                for name in batch
            ]
            for name, read in reads:
                try:
                    data, _ = session.wait(read)
                except NoNodeError:
                    nodes.pop(name, None)
                else:
                    nodes[name] = self._decoded(name, data)
        self._nodes = nodes
        self._read_at = time.monotonic()
        if self.publish(replica for replica in nodes.values() if replica) and self.replicas():
            self._directory._cache.save(self.service, self.replicas())  # noqa: SLF001

    def _names(self, session: Session) -> list[str]:
        client = session.client
        for _ in range(3):
            try:
                names = session.wait(
                    client.get_children_async(self.path, watch=self._children_changed)
                )
                return list(names)
            except NoNodeError:
                # A watch on a missing parent would never fire again (kazoo#153): make it first.
                session.wait(client.ensure_path_async(self.path))
        raise KazooException(f"{self.path} keeps being deleted")

    def _decoded(self, name: str, data: bytes) -> Replica | None:
        try:
            return instance.decode(data)
        except InstanceFormatError as error:
            # Once for each content: the node stays in the cache until it changes.
            logger.warning(
                "%s/%s is not a registration and is passed over: %s", self.path, name, error
            )
            return None


def _parse(hosts: str) -> tuple[str, str]:
    servers, slash, chroot = hosts.partition("/")
    example = "give servers and a chroot, like 'zk1:2181,zk2:2181/gateway'"
    if not servers.strip():
        raise ValueError(f"no ZooKeeper server in {hosts!r}: {example}")
    try:
        found, _ = collect_hosts(servers)
    except ValueError as error:
        raise ValueError(f"{hosts!r} can't be read as ZooKeeper servers: {example}") from error
    if not all(host and 0 < port < 65536 for host, port in found):
        raise ValueError(f"{hosts!r} names a server without host or port: {example}")
    chroot = f"{slash}{chroot}".rstrip("/")
    if "//" in chroot:
        raise ValueError(f"the chroot of {hosts!r} has an empty part: {example}")
    return servers, chroot


def _check_name(name: str) -> None:
    if not name or "/" in name or "\0" in name or name in (".", "..", "zookeeper"):
        raise ValueError(f"{name!r} can't be the name of a node in ZooKeeper")
