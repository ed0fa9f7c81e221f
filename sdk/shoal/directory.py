"""Discovery over ZooKeeper that outlives ZooKeeper's outages.

The parts lie in modules of their own; this is the public class that holds them together, and it is
long by what its arguments and errors mean.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kazoo.hosts import collect_hosts

from shoal import callername, diskcache, forks, instance, observing, zookeepertls
from shoal.channels import ChannelOwner
from shoal.contracts import ServedContract
from shoal.contractstore import ContractStore, Reader
from shoal.errors import RegistrationError
from shoal.registrar import ZooKeeperRegistration
from shoal.servicewatch import ServiceWatch
from shoal.session import HandlerFactory, Session
from shoal.tls import Tls
from shoal.worker import Worker
from shoal_balancer import Replica

if TYPE_CHECKING:
    from shoal.recipes.desk import Desk

logger = logging.getLogger(__name__)

# Longest wait of close() for announcements to be taken back, all together, and then for the end of
# the session, seconds.
FAREWELLS = 5.0
GOODBYE = 2.0


class Directory(ChannelOwner):
    """The replicas of all services below one ZooKeeper chroot, and a way to be one of them.

        with shoal.Directory("zk1:2181,zk2:2181/gateway") as directory:
            with directory.channel("registry") as channel: ...

    One ZooKeeper session per process and directory, made at the first use (again in a forked
    child). The constructor neither blocks nor raises when ZooKeeper is dead: callers start from the
    last set that any caller on this machine has seen, and `ServiceWatch.describe` says so. Through
    an outage the last good set is held, and a set that becomes empty is believed only if its
    replicas left in order (`shoal.belief`).

    Args:
        hosts: ZooKeeper servers, comma-separated, and a chroot: ``zk1:2181,zk2:2181/gateway``.
            The first that announces or coordinates makes it; who only looks makes nothing.
            ``tls://zk1:2281/gateway`` where ZooKeeper speaks TLS; see `shoal.zookeepertls`.
        session_timeout: Asked of the server, seconds; it clamps it to 2–20 of its ticks.
        cache_dir: Where snapshots for starts without ZooKeeper are kept; default
            ``$SHOAL_CACHE_DIR`` or ``~/.cache/shoal``.
        services_path: Parent of the services below the chroot.
        verify_every: Seconds between checks of what this process has announced.
        resync_every: Seconds between looks at what is watched, ±20 %: at the list, and at some of
            its nodes in turn.
        handler: Makes the handler of the kazoo client, for example kazoo's
            ``SequentialEventletHandler``; by default gevent's where gevent has patched threading,
            else threads.
        rng: Spreads reads and writes over time.
        tls: Certificate and trusted authorities, with which its channels call; None for plaintext.
            Shown to ZooKeeper, too, where ``hosts`` says that it speaks TLS.

    Raises:
        TlsError: the certificate or the authorities can't be used.
        ValueError: ``hosts`` can't be read or says ``tls://`` without ``tls``, or a duration is not
            positive.
    """

    caller_id: str

    def __init__(
        self,
        hosts: str,
        *,
        session_timeout: float = 10.0,
        cache_dir: Path | str | None = None,
        services_path: str = "/services",
        verify_every: float = 30.0,
        resync_every: float = 60.0,
        handler: HandlerFactory | None = None,
        rng: random.Random | None = None,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(tls)
        servers, chroot = parse_hosts(hosts)
        secure = hosts.startswith(zookeepertls.SCHEME)
        if secure and tls is None:
            raise ValueError(
                f"{hosts!r} is a ZooKeeper that wants a certificate: give tls=shoal.Tls.of(…), or "
                "--tls DIR on the command line"
            )
        for name, seconds in (
            ("session_timeout", session_timeout),
            ("verify_every", verify_every),
            ("resync_every", resync_every),
        ):
            if not seconds > 0.0:
                raise ValueError(f"{name} must be positive seconds, not {seconds!r}")
        self.hosts = hosts
        self.services_path = f"{chroot}/{services_path.strip('/')}"
        self.services_below = f"/{services_path.strip('/')}"
        self._chroot = chroot
        self._protos_path = f"{chroot}/protos"
        self._servers = servers
        self._zookeeper_tls = tls if secure else None
        self._session_timeout = session_timeout
        self._verify_every = verify_every
        self._resync_every = resync_every
        self._handler = handler
        self._rng = rng or random.Random()  # noqa: S311 - it spreads load, it keeps no secret
        self._cache = diskcache.DiskCache(
            Path(cache_dir) if cache_dir is not None else diskcache.default_directory(),
            f"{servers}{self.services_path}",
        )
        self._watches: dict[str, ServiceWatch] = {}
        self._registrations: set[ZooKeeperRegistration] = set()
        self._session: Session | None = None
        self._desk: Desk | None = None
        self._begin_process()
        forks.on_fork(self)
        observer = observing.current()
        if observer is not None:
            observer.directory(self)

    def __repr__(self) -> str:
        return f"Directory({self.hosts!r})"

    @property
    def cache_dir(self) -> Path | None:
        """Where snapshots are kept; None: nowhere."""
        return self._cache.directory

    def watch(self, service: str) -> ServiceWatch:
        """The one watch of a service; the first call for it begins to look in the background.

        Raises:
            ValueError: the name can't be a node's name.
            DirectoryClosedError: the directory was closed.
        """
        check_name(service)
        with self._lock:
            session = self._running()
            watch = self._watches.get(service)
            if watch is None:
                watch = self._watches[service] = ServiceWatch(
                    service,
                    f"{self.services_path}/{service}",
                    cache=self._cache,
                    resync_every=self._resync_every,
                    state=self.describe,
                    rng=self._rng,
                )
                watch.begin(session, self._worker)
        return watch

    def watches(self) -> dict[str, ServiceWatch]:
        """All watches there are, by service."""
        with self._lock:
            return dict(self._watches)

    def ready(self, service: str, timeout: float = 15.0, *, count: int = 1) -> tuple[Replica, ...]:
        """Waits until ``count`` replicas of a service take calls, and returns them.

        Nothing needs this before a call: a channel waits by itself with ``wait_for_ready``. It is
        for start-up checks, scripts and tests.

        Raises:
            TimeoutError: there were fewer within ``timeout`` seconds; says what is known.
            DirectoryClosedError: the directory was closed.
        """
        watch = self.watch(service)
        found: list[tuple[Replica, ...]] = []
        enough = threading.Event()

        def look(replicas: tuple[Replica, ...]) -> None:
            routable = tuple(replica for replica in replicas if replica.routable)
            if len(routable) >= count:
                found.append(routable)
                enough.set()

        unsubscribe = watch.subscribe(look)
        try:
            if not enough.wait(timeout):
                raise TimeoutError(
                    f"{watch.path} had fewer than {count} replicas that take calls for "
                    f"{timeout:g} s; ZooKeeper is {watch.describe()}"
                )
        finally:
            unsubscribe()
        return found[-1]

    def announce(
        self,
        service: str,
        replica: Replica,
        *,
        timeout: float = 15.0,
        secure: bool = False,
        contract: ServedContract | None = None,
    ) -> ZooKeeperRegistration:
        """Announces a replica that serves already, and keeps the announcement true.

        Args:
            service: The service's name.
            replica: What to announce; its ``registered_at`` is set when it is 0.
            timeout: Seconds to wait for ZooKeeper.
            secure: Whether the port speaks TLS; a replica with an ``ssl_port`` says so itself.
            contract: What it serves, for callers who ask; published beside it.

        Raises:
            ContractError: the contract is too large to be published.
            RegistrationError: it was not announced within ``timeout`` seconds, and nothing is left
                behind that would announce it later; or this directory announces that id already;
                or its metadata is too large.
            ValueError: the service's or the replica's name can't be a node's name.
            DirectoryClosedError: the directory was closed.
        """
        check_name(service)
        check_name(replica.id)
        if not replica.registered_at:
            # To the millisecond, as it is written: callers see the very same replica.
            replica = replace(replica, registered_at=round(time.time(), 3))
        if secure and replica.ssl_port is None:
            replica = replace(replica, ssl_port=replica.port)
        path = f"{self.services_path}/{service}/{replica.id}"
        size = len(instance.encode(service, replica))
        if size > instance.LARGEST:
            raise RegistrationError(
                f"{path} would hold {size} bytes, and every caller reads them at each change: at "
                f"most {instance.LARGEST} are announced. Announce only what callers choose by"
            )
        published = self._contracts.node(contract) if contract is not None else None
        with self._lock:
            session = self._running()
            if any(registration.path == path for registration in self._registrations):
                raise RegistrationError(
                    f"{path} is announced by this directory already; withdraw that first, or give "
                    "the replica another id"
                )
            registration = ZooKeeperRegistration(
                session,
                path,
                service,
                replica,
                worker=self._worker,
                rng=self._rng,
                forget=self._registrations.discard,
                contract=published,
            )
            self._registrations.add(registration)
        try:
            registration.announce(timeout)
        except RegistrationError:
            registration.begin_withdrawal()
            raise
        return registration

    def desk(self) -> Desk:
        """What locks and the other recipes of this process share; made at the first use.

        Raises:
            DirectoryClosedError: the directory was closed.
        """
        # Here, so that a process that only calls does not load it.
        from shoal.recipes.desk import Desk

        with self._lock:
            session = self._running()
            if self._desk is None:
                self._desk = Desk(session, self._chroot)
            return self._desk

    def on_own_thread(self) -> bool:
        """Whether the caller is a callback on one of the directory's threads; it must not wait."""
        desk = self._desk
        return self._worker.inside or (desk is not None and desk.worker.inside)

    def remembered(self) -> frozenset[str]:
        """Services of which the disk has a snapshot: what a start without ZooKeeper knows."""
        return self._cache.services()

    def ask_contract(self, digest: str, reader: Reader) -> None:
        """Has ``reader`` called with what is published under a digest; see `ContractStore.ask`."""
        self._contracts.ask(digest, reader)

    @property
    def connected(self) -> bool:
        """Whether ZooKeeper answers at the moment."""
        session = self._session
        return session is not None and session.connected

    def describe(self) -> str:
        """The session's state for a person: "connected", "suspended for 3.2 s"."""
        session = self._session
        return session.describe() if session is not None else "not used yet"

    def close(self) -> None:
        """Closes channels, withdraws announcements, ends the session. Idempotent."""
        with self._lock:
            if self._closed:
                return
            # Nothing new is made from here on; what is there already still works.
            self._closed = True
            session, self._session = self._session, None
            desk, self._desk = self._desk, None
        super().close()
        if desk is not None:
            desk.close(f"{self!r} was closed")
        farewells = [each.begin_withdrawal() for each in list(self._registrations)]
        deadline = time.monotonic() + FAREWELLS
        if not self._worker.inside:
            for done in farewells:
                if not done.wait(max(0.0, deadline - time.monotonic())):
                    logger.warning("%r: announcements are left to vanish with the session", self)
                    break
        # A worker that waits for an answer of a silent ZooKeeper gets none when the session ends.
        self._worker.stop(max(0.1, deadline - time.monotonic()))
        if session is not None:
            session.close(GOODBYE)

    def after_fork(self) -> None:
        """In a forked child: the parent's session and announcements are the parent's."""
        for registration in self._registrations:
            registration.abandon()
        self._registrations = set()
        for watch in self._watches.values():
            watch.forget_threads()
        self._channels = weakref.WeakSet()
        if self._desk is not None:
            self._desk.abandon()
            self._desk = None
        if self._session is not None:
            self._session.abandon()
            self._session = None
        self._begin_process()

    def _begin_process(self) -> None:
        self.caller_id = callername.named(uuid.uuid4())
        self._lock = threading.Lock()
        self._worker = Worker("shoal-directory")
        self._contracts = ContractStore(
            self._protos_path, self._cache.directory, lambda: self._session, self._worker
        )

    def _running(self) -> Session:
        self._check_open()
        session = self._session
        if session is None:
            session = self._session = Session(
                self._servers,
                self._session_timeout,
                self._worker,
                self._connected,
                handler=self._handler,
                tls=self._zookeeper_tls,
            )
            session.start()
            self._worker.call_later(self._verify_every, self._verify)
            for watch in self._watches.values():
                watch.begin(session, self._worker)
        return session

    def _connected(self, lost_session: bool) -> None:
        for registration in list(self._registrations):
            if lost_session:
                registration.ensure_after_storm()
            else:
                registration.ensure_soon()
        for watch in list(self._watches.values()):
            watch.reread(spread=True)
        self._contracts.connected()

    def _verify(self) -> None:
        for registration in list(self._registrations):
            registration.ensure_soon()
        self._worker.call_later(self._verify_every, self._verify)


def parse_hosts(hosts: str) -> tuple[str, str]:
    """Servers and chroot of ``zk1:2181,zk2:2181/gateway``: the chroot is ``/gateway`` or empty.

    ``tls://`` before them is passed over.

    Raises:
        ValueError: it can't be read; says what it should look like.
    """
    example = "give servers and a chroot, like 'zk1:2181,zk2:2181/gateway'"
    if not isinstance(hosts, str):
        raise ValueError(f"ZooKeeper's address is a string, not {hosts!r}: {example}")  # noqa: TRY004 - one kind of error for one kind of mistake
    servers, _, chroot = hosts.strip().removeprefix(zookeepertls.SCHEME).partition("/")
    try:
        found, _ = collect_hosts(servers)
        for host, _ in found:
            # What the resolver would do first; a name that it can't encode would end the session.
            host.strip().encode("idna")
    except ValueError as error:
        raise ValueError(f"{hosts!r} can't be read as ZooKeeper servers: {example}") from error
    if not all(host.strip() and 0 < port < 65536 for host, port in found):
        raise ValueError(f"{hosts!r} names a server without host or port: {example}")
    parts = chroot.rstrip("/").split("/") if chroot.strip("/") else []
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError(f"the chroot of {hosts!r} has the part {part!r}: {example}")
    return servers, "".join(f"/{part}" for part in parts)


def check_name(name: str) -> None:
    """Refuses what can't be one node's name.

    Raises:
        ValueError: says so.
    """
    if not name or "/" in name or "\0" in name or name in (".", "..", "zookeeper"):
        raise ValueError(f"{name!r} can't be the name of a node in ZooKeeper")
